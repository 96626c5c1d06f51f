"""Updates written down plainly, to compare the trainer with: transformers' model, torch's AdamW, a sample at a time.

Nothing of `core` is used. Left out: packing, micro-batches, parallel layouts, KL and entropy terms.
Legend: T response tokens of one sample, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.support.tiny_models import reference_model


@dataclass(frozen=True)
class Settings:
    """Numbers of an update. The run file of the trainer under test has to say the same."""

    rates: tuple[float, ...]  # the learning rate of each optimiser step
    num_steps: int  # optimiser steps per update
    betas: tuple[float, float]
    eps: float
    weight_decay: float
    clip_grad: float
    clip_ratio: tuple[float, float]
    temperature: float


# what files call the parts of a layer with experts, where it is not what transformers calls them
FILE_NAMES = {
    "minimax_m2": {"mlp": "block_sparse_moe", "gate_proj": "w1", "down_proj": "w2", "up_proj": "w3"},
}


def _as_stored(tensors: Mapping[str, Tensor], model_type: str) -> dict[str, Tensor]:
    """Copies; those of all experts, which transformers computes with as one, under the names that files have."""
    names = FILE_NAMES.get(model_type, {})
    apart = _experts_apart(tensors)
    return {".".join(names.get(part, part) for part in name.split(".")): tensor for name, tensor in apart.items()}


def _experts_apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each expert's by itself, but where files have them as one: those alone have biases."""
    if any(name.endswith("experts.down_proj_bias") for name in tensors):
        return {name: tensor.clone() for name, tensor in tensors.items()}
    found = {}
    for name, tensor in tensors.items():
        begin, experts, last = name.rpartition(".experts.")
        if not experts:
            found[name] = tensor.clone()
            continue
        projections = ("gate_proj", "up_proj") if last == "gate_up_proj" else (last,)
        for number, one in enumerate(tensor.unbind()):
            parts = zip(projections, one.chunk(len(projections)), strict=True)
            found |= {f"{begin}.experts.{number}.{projection}.weight": part.clone() for projection, part in parts}
    return found


class PlainTrainer:
    """A model, its AdamW, and how many steps it has taken."""

    def __init__(self, model_dir: Path, settings: Settings) -> None:
        self.settings, self.steps_taken = settings, 0
        self.model: Any = reference_model(model_dir)
        parameters = {name: p for name, p in self.model.named_parameters() if p.requires_grad}  # tied embeddings once
        vectors = [name for name, p in parameters.items() if p.dim() == 1 or name.endswith("_bias")]  # of all experts
        groups = [
            {
                "params": [p for name, p in parameters.items() if name not in vectors],
                "weight_decay": settings.weight_decay,
            },
            {"params": [parameters[name] for name in vectors], "weight_decay": 0.0},
        ]
        self.adam = torch.optim.AdamW(groups, betas=settings.betas, eps=settings.eps)

    def update(self, samples: Sequence[Any]) -> list[dict[str, float]]:
        """Loss, gradient norm before clipping, rate and share of clipped tokens of each optimiser step."""
        with torch.no_grad():
            old = [self.logprobs(sample) for sample in samples]
        bounds = [len(samples) * i // self.settings.num_steps for i in range(self.settings.num_steps + 1)]
        return [self._step(samples[a:b], old[a:b]) for a, b in pairwise(bounds)]

    def forget(self) -> None:
        """AdamW begins anew, and the schedule goes on."""
        self.adam.state.clear()

    def logprobs(self, sample: Any) -> Tensor:
        """[T] log-probs of the response."""
        tokens = torch.tensor([*sample.prompt_tokens, *sample.response_tokens])
        logits = self.model(tokens[None]).logits[0, len(sample.prompt_tokens) - 1 : -1]  # [T, V]
        chosen = tokens[len(sample.prompt_tokens) :, None]
        return (logits / self.settings.temperature).log_softmax(-1).gather(1, chosen)[:, 0]

    def state(self) -> dict[str, dict[str, Tensor]]:
        """Copies of weights and both moments, by parameter name."""
        named = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        kind = self.model.config.model_type
        weights = _as_stored({name: p.detach() for name, p in named.items()}, kind)
        moments = {
            key: _as_stored({name: self.adam.state[p][key] for name, p in named.items()}, kind)
            for key in ("exp_avg", "exp_avg_sq")
        }
        return {"weights": weights, **moments}

    def _step(self, samples: Sequence[Any], old: Sequence[Tensor]) -> dict[str, float]:
        loss, clip_share = self._loss(samples, old)
        self.adam.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip_grad)
        rate = self.settings.rates[self.steps_taken]
        for group in self.adam.param_groups:
            group["lr"] = rate
        self.adam.step()
        self.steps_taken += 1
        return {"loss": float(loss.detach()), "grad_norm": float(norm), "lr": rate, "pg_clipfrac": clip_share}

    def _loss(self, samples: Sequence[Any], old: Sequence[Tensor]) -> tuple[Tensor, float]:
        """Clipped GRPO, a mean over all unmasked tokens of the samples; and the share of them that is clipped."""
        below, above = self.settings.clip_ratio
        mask = torch.tensor([m for sample in samples for m in sample.loss_mask]).bool()
        advantage = torch.tensor([sample.advantage for sample in samples for _ in sample.loss_mask])[mask]
        ratio = (torch.cat([self.logprobs(sample) for sample in samples]) - torch.cat(list(old))).exp()[mask]
        bounded = torch.where(advantage > 0, ratio.clamp(max=1 + above), ratio.clamp(min=1 - below))
        return -(bounded * advantage).mean(), float((bounded != ratio).float().mean())
