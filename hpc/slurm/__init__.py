"""Slurm's commands, options, components, allocations and job states."""
