"""Experts of samples in rows, and back: every token has its own, whatever shares its row."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from core.megatron.layers.routing import OWN, RowRouting
from core.megatron.rows.packing import Row, build_row, plan_rows
from core.megatron.rows.routing import Routing, fed_tokens, row_routing
from core.samples import TrainSample

LAYERS, CHOSEN = 3, 2


def made(seed: int) -> tuple[list[TrainSample], list[Routing]]:
    """Groups of samples; those of one prompt agree about it, as they do where one model has read it."""
    rng, numbers = random.Random(seed), np.random.default_rng(seed)
    samples, routings = [], []
    for group in range(4):
        prompt = [rng.randrange(1, 99) for _ in range(rng.randint(1, 9))]
        of_prompt = numbers.integers(0, 200, (len(prompt), LAYERS, CHOSEN), np.uint8)
        for _ in range(rng.randint(1, 4)):
            length = rng.randint(1, 7)
            samples.append(TrainSample(group, prompt, [5] * length, [1] * length, 1.0, [0.0] * length))
            of_response = numbers.integers(0, 200, (length - 1, LAYERS, CHOSEN), np.uint8)
            routings.append(np.concatenate([of_prompt, of_response]))
    return samples, routings


def rows_of(
    samples: list[TrainSample], routings: list[Routing | None], *, share: bool
) -> list[tuple[Row, torch.Tensor | None]]:
    (plan,) = plan_rows(samples, 40, 1, share)
    rows = [build_row(samples, units, 8) for units in plan]
    return [
        (row, row_routing(samples, routings, units, len(row.tokens))) for row, units in zip(rows, plan, strict=True)
    ]


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_each_sample_finds_its_own_again(seed: int, share: bool) -> None:
    samples, routings = made(seed)
    met = []
    for row, experts in rows_of(samples, list(routings), share=share):
        assert experts is not None
        told = torch.zeros(len(row.tokens), dtype=torch.bool)
        for sample, fed in fed_tokens(row, samples):
            assert np.array_equal(experts[fed].numpy(), routings[sample])
            told[fed] = True
            met.append(sample)
        assert (experts[~told] == OWN).all(), "padding has its routers' own"
        assert (experts[told] != OWN).all()
    assert sorted(met) == list(range(len(samples)))


def test_a_prompt_has_the_experts_of_a_sample_that_knows() -> None:
    samples, routings = made(1)
    known = [None if place % 2 == 0 else one for place, one in enumerate(routings)]
    for row, experts in rows_of(samples, known, share=True):
        for sample, fed in fed_tokens(row, samples):
            prompt = len(samples[sample].prompt_tokens)
            if (one := known[sample]) is not None:
                assert experts is not None
                assert np.array_equal(experts[fed].numpy(), one)
            elif experts is not None:
                assert (experts[fed[prompt:]] == OWN).all()
    assert all(experts is None for _, experts in rows_of(samples, [None] * len(samples), share=True))


def test_a_row_without_samples_tells_of_none() -> None:
    row = build_row([], [], 4)
    assert list(fed_tokens(row, [])) == []
    assert row_routing([], [], [], len(row.tokens)) is None


def test_what_is_known_takes_the_place_of_a_routers_own() -> None:
    own = torch.tensor([[1, 2], [3, 4], [5, 6]])
    given = torch.tensor([[[0, 0], [7, 8]], [[0, 0], [OWN, OWN]], [[0, 0], [9, 1]]], dtype=torch.int16)
    noted: dict[int, torch.Tensor] = {}
    chosen = RowRouting(given, noted).settle(1, own)
    assert chosen.tolist() == [[7, 8], [3, 4], [9, 1]]
    assert chosen.dtype == own.dtype
    assert noted[1].tolist() == chosen.tolist()
    assert RowRouting(None, noted).settle(0, own).tolist() == own.tolist()
