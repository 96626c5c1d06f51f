"""Two updates of the critic are those of transformers' layers with a linear head, plain sums and torch's AdamW.

Nothing of `core` is in the plain critic. Legend: T response tokens of one sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.rank_main import make_samples
from tests.support.ranks import run_ranks
from tests.support.tiny_models import tiny_model

GAMMA, LAMBD, CLIP, LR, EPS, MOST = 0.97, 0.9, 0.05, 3e-3, 1e-4, 0.5
KINDS = ("llama", "qwen2-tied")
UPDATES = (0, 1)
CONFIG: dict[str, dict[str, Any]] = {
    "algorithm": {"advantage_estimator": "gae", "advantage_options": {"gamma": GAMMA, "lambd": LAMBD}},
    "critic": {"lr": LR, "value_clip": CLIP},
    "train": {"lr_schedule": "constant", "adam_eps": EPS, "clip_grad": MOST, "max_tokens_per_micro_batch": 40},
}


class PlainCritic:
    """A model with a head of one output, and its AdamW."""

    def __init__(self, model_dir: Path) -> None:
        from transformers import AutoModel

        self.body: Any = AutoModel.from_pretrained(model_dir, dtype=torch.float32)
        self.head = torch.zeros(self.body.config.hidden_size, requires_grad=True)
        self.parameters = [*self.body.parameters(), self.head]
        self.adam = torch.optim.AdamW(self.parameters, LR, betas=(0.9, 0.98), eps=EPS, weight_decay=0.0)

    def values(self, sample: Any) -> Tensor:
        """[T], each from the hidden state that predicts the token."""
        tokens = torch.tensor([[*sample.prompt_tokens, *sample.response_tokens]])
        hidden = self.body(tokens).last_hidden_state[0]
        found: Tensor = hidden[len(sample.prompt_tokens) - 1 : -1] @ self.head
        return found

    def update(self, samples: Sequence[Any]) -> dict[str, Any]:
        """Two optimiser steps over halves of the samples; raw advantages are judged by the values before."""
        with torch.no_grad():
            old = [self.values(sample) for sample in samples]
        raw = [advantages(sample, value) for sample, value in zip(samples, old, strict=True)]
        bounds = (0, len(samples) // 2, len(samples))
        steps = [self._step(samples[a:b], old[a:b], raw[a:b]) for a, b in pairwise(bounds)]
        counted = torch.cat(raw)[torch.tensor([m for sample in samples for m in sample.loss_mask]).bool()]
        whitened = [(one - counted.mean()) / counted.std(correction=0) for one in raw]
        with torch.no_grad():
            after = [self.values(sample).tolist() for sample in samples]
        means = {name: sum(step[name] for step in steps) / 2 for name in steps[0]}
        return {"metrics": means, "advantages": whitened, "values": after}

    def _step(self, samples: Sequence[Any], old: Sequence[Tensor], raw: Sequence[Tensor]) -> dict[str, float]:
        mask = torch.tensor([m for sample in samples for m in sample.loss_mask]).bool()
        values = torch.cat([self.values(sample) for sample in samples])[mask]
        before, gain = torch.cat(list(old))[mask], torch.cat(list(raw))[mask]
        near = torch.max(torch.min(values, before + CLIP), before - CLIP)
        returns = before + gain
        free, held = (values - returns) ** 2, (near - returns) ** 2
        loss = torch.max(free, held).mean()
        self.adam.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, MOST)
        self.adam.step()
        share = float((held > free).float().mean())
        return {"value_loss": loss.item(), "critic_grad_norm": float(norm), "value_clipfrac": share}


def advantages(sample: Any, values: Tensor) -> Tensor:
    """[T] by the recursion, from the last token that counts; 0 at those that do not."""
    found, ahead, following, reward = torch.zeros(len(values)), 0.0, 0.0, sample.reward
    for place in reversed(range(len(values))):
        if sample.loss_mask[place]:
            ahead = reward + GAMMA * following - float(values[place]) + GAMMA * LAMBD * ahead
            following, reward, found[place] = float(values[place]), 0.0, ahead
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("reference_critic")
    for kind in KINDS:
        tiny_model(kind, root / kind)
    return root


@pytest.fixture(scope="module")
def found(folder: Path) -> dict[str, list[Any]]:
    actions = [["update_critic", seed] for seed in UPDATES]
    cases = {kind: {"model": str(folder / kind), "config": CONFIG, "actions": actions} for kind in KINDS}
    return run_ranks(folder / "ranks", 1, cases)


@pytest.mark.parametrize("kind", KINDS)
def test_updates_are_those_of_the_plain_critic(found: dict[str, list[Any]], folder: Path, kind: str) -> None:
    plain = PlainCritic(folder / kind)
    clipped = []
    for seed in UPDATES:
        samples, ours = make_samples(seed), found[kind][seed]
        wanted = plain.update(samples)
        for name, value in wanted["metrics"].items():
            assert ours["metrics"][f"train/{name}"] == pytest.approx(value, rel=2e-5, abs=1e-6), name
        for one, other, sample in zip(ours["advantages"], wanted["advantages"], samples, strict=True):
            counted = [place for place, m in enumerate(sample.loss_mask) if m]
            assert [one[i] for i in counted] == pytest.approx([float(other[i]) for i in counted], abs=2e-5)
        for one, values in zip(ours["values"], wanted["values"], strict=True):
            assert one == pytest.approx(values, abs=2e-5)
        clipped.append(wanted["metrics"]["value_clipfrac"])
    assert max(clipped) > 0.05, "the clip has something to do"
