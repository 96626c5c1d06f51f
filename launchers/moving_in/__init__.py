"""Launch scripts of slime, read without running them, and the run files that they become."""
