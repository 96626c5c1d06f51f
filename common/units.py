"""Sizes in bytes that have a name."""

from __future__ import annotations

KIB = 2**10
MIB = 2**20
GIB = 2**30
TIB = 2**40
FP32_BYTES = 4  # of one number in float32
