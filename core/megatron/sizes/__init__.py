"""Bytes of what the trainer builds, counted without torch: a login node plans with it."""
