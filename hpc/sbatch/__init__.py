"""Jobs as script text. Pure."""
