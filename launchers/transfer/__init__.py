"""Models out of runs, models and data from a hub: on the login node."""
