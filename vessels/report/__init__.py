"""What people read and look at: tables, plots and the results page."""
