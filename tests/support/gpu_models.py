"""Models on a GPU: a process that is its only rank, weights changed a little, log-probs beside an engine's."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from core.samples import SamplingParams
from core.sglang.client import EngineClient

PROMPT = [5, 6, 7, 8, 9, 10]


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


def worst_difference(client: EngineClient, model: torch.nn.Module) -> float:
    """Largest |engine log-prob - bf16 model's log-prob| over a few samples."""
    made = asyncio.run(client.generate_group(PROMPT, [SamplingParams(40, seed=seed) for seed in range(4)]))
    worst = 0.0
    for one in made:
        tokens = torch.tensor([PROMPT + one.tokens], device="cuda")
        with torch.no_grad():
            logprobs = torch.log_softmax(model(tokens).logits[0, :-1].float(), -1)
        wanted = logprobs.gather(1, tokens[0, 1:, None])[len(PROMPT) - 1 :, 0].cpu()
        worst = max(worst, float((wanted - torch.tensor(one.logprobs)).abs().max()))
    return worst


def used_bytes() -> int:
    free, total = torch.cuda.mem_get_info()
    return total - free
