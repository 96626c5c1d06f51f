"""The loop: one file per schedule, and what a step needs and keeps."""
