"""Layers that differ from Megatron's own."""
