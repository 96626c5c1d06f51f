"""Models out of runs, on the login node."""
