"""From a photograph to a map, and to numbers."""
