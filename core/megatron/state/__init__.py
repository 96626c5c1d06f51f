"""What the trainer keeps: parameters, optimizer, checkpoints, and what of it leaves the GPU."""
