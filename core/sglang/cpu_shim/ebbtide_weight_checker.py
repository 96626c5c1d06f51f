"""A plugin for SGLang (0.5.21) on a CPU: its weight checker waits for the GPU first, and torch without CUDA refuses."""

from __future__ import annotations

import torch


def register() -> None:
    """Called by SGLang in each of its processes: there is nothing to wait for."""
    torch.cuda.synchronize = lambda *_device: None
