"""Models on a GPU, changed a little."""

from __future__ import annotations

import torch


def perturbed(model: torch.nn.Module, seed: int) -> list[tuple[str, torch.Tensor]]:
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return [(name, parameter.detach()) for name, parameter in model.named_parameters()]
