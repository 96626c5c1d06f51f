"""A model beside the engine that serves it: the same log-probs, or not."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import torch

from core.samples import SamplingParams
from core.sglang.client import EngineClient

PROMPT = [5, 6, 7, 8, 9, 10]


def load(directory: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)


def hf_logprobs(model: Any, tokens: list[int], temperature: float = 1.0) -> torch.Tensor:
    """[T - 1] log-probability of each token but the first."""
    with torch.no_grad():
        logits = model(torch.tensor([tokens])).logits[0, :-1] / temperature
    return torch.log_softmax(logits, -1).gather(1, torch.tensor(tokens[1:])[:, None])[:, 0]


def assert_same_model(client: EngineClient, model: Any) -> None:
    """The engine's log-probs, of its own samples and of a given text, are those of `model`."""
    made = asyncio.run(client.generate_group(PROMPT, [SamplingParams(40, seed=seed) for seed in range(4)]))
    for one in made:
        tokens = PROMPT + one.tokens
        wanted = hf_logprobs(model, tokens)
        assert_close(one.logprobs, wanted[len(PROMPT) - 1 :])
        assert_close(client.score(tokens), wanted)


def assert_close(found: list[float], wanted: torch.Tensor) -> None:
    difference = (torch.tensor(found) - wanted).abs()
    assert len(found) == len(wanted)
    assert float(difference.mean()) < 1e-5
    assert float(difference.max()) < 1e-3


def perturbed(model: Any, seed: int) -> list[tuple[str, torch.Tensor]]:
    """Change the model's weights in place; its tensors under the names that they have in files."""
    from transformers.core_model_loading import revert_weight_conversion

    generator = torch.Generator().manual_seed(seed)
    stored = model.state_dict()  # tied ones twice
    biases = {name: buffer for name, buffer in model.named_buffers() if name in stored}
    found = {name: parameter.detach() for name, parameter in model.named_parameters()} | biases
    for tensor in found.values():
        tensor.add_(torch.empty_like(tensor).normal_(0, 0.02, generator=generator))
    return list(revert_weight_conversion(model, found).items())  # it has the experts of a layer in one tensor
