"""One main() for each role of a process."""
