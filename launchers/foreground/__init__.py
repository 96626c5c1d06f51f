"""A run at a terminal: started, followed, ended."""
