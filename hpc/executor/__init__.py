"""Submitit's executor for heterogeneous jobs."""
