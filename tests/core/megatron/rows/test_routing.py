"""Experts of samples in rows, and back: every token has its own, whatever shares its row."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from core.megatron.layers.routing import OWN, RowCount, RowRouting, agreeing
from core.megatron.rows.agreement import OF_A_STEP, OF_THE_FIRST, of_update
from core.megatron.rows.packing import Row, build_row, plan_rows
from core.megatron.rows.routing import Routing, fed_tokens, known_by, row_routing
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


@pytest.mark.parametrize(
    ("given", "own", "samples", "wanted"),
    [
        ([[3, 5]], [[5, 3]], [1], [2, 2]),
        ([[3, 5]], [[5, 4]], [1], [1, 2]),
        ([[3, 5], [3, 5]], [[3, 5], [5, 4]], [4, 1], [9, 10]),
        ([[3, 5], [OWN, OWN]], [[1, 2], [3, 4]], [1, 0], [0, 2]),
        ([[OWN, OWN]], [[3, 4]], [0], [0, 0]),
    ],
    ids=["in another order", "one of them", "a shared prompt", "a token of which nothing is known", "nothing"],
)
def test_a_replayed_expert_agrees_where_the_router_would_have_taken_it(
    given: list[list[int]], own: list[list[int]], samples: list[int], wanted: list[int]
) -> None:
    counts = torch.tensor(samples)
    assert agreeing(torch.tensor(given), torch.tensor(own), counts).tolist() == wanted
    counted = RowCount(counts, {})
    replayed = torch.tensor(given, dtype=torch.int16)[:, None]
    for _ in range(2):  # as where a layer is recomputed
        RowRouting(replayed, None, counted).settle(0, torch.tensor(own))
    assert counted.found[0].tolist() == wanted


def test_agreement_of_an_update_is_the_mean_of_the_steps_that_replay_and_the_first() -> None:
    assert of_update([{OF_A_STEP: 1.0}, {}, {OF_A_STEP: 0.5}]) == {OF_A_STEP: 0.75, OF_THE_FIRST: 1.0}
    assert of_update([{}, {OF_A_STEP: 0.5}]) == {OF_A_STEP: 0.5}
    assert of_update([{}, {}]) == {}


@pytest.mark.parametrize("seed", range(3))
def test_a_token_counts_for_each_sample_that_knows_it_whatever_rows_share(seed: int) -> None:
    samples, made_all = made(seed)
    routings: list[Routing | None] = [None if place % 4 == 1 else one for place, one in enumerate(made_all)]
    routings = [one if one is None or place % 3 else one[:-1] for place, one in enumerate(routings)]
    wanted = sum(len(one) for one in routings if one is not None)
    for share in (True, False):
        (plan,) = plan_rows(samples, 40, 1, share)
        rows = [build_row(samples, units, 8) for units in plan]
        counts = [known_by(samples, routings, units, len(row.tokens)) for row, units in zip(rows, plan, strict=True)]
        assert sum(int(one.sum()) for one in counts) == wanted
        for (row, experts), count in zip(rows_of(samples, routings, share=share), counts, strict=True):
            assert len(count) == len(row.tokens)
            assert experts is None or torch.equal((experts != OWN).all(-1).all(-1), count > 0)
    assert known_by(samples, None, plan[0], 99).sum() == 0
