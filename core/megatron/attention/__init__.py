"""Attention over packed rows: plans, blocks, kernels."""
