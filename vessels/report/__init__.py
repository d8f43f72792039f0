"""Tables, plots and the results page."""
