"""Models on a GPU: a process that is its only rank, weights changed a little."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def only_rank() -> Iterator[None]:
    """Process groups of this process alone; none are left for the next test that makes its own."""
    from bench.gpu_trainer import make_config, one_rank
    from core.megatron.parallel import initialise, shut_down

    one_rank()
    initialise(make_config(8).placement, 0, "cuda")
    try:
        yield
    finally:
        shut_down()


def perturbed(model: torch.nn.Module, seed: int) -> list[tuple[str, torch.Tensor]]:
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return [(name, parameter.detach()) for name, parameter in model.named_parameters()]
