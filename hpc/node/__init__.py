"""A node as it is: GPUs, health, network."""
