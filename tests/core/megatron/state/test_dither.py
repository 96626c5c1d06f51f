"""fp32 masters anywhere in the intervals of their bf16 weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import core.megatron.state.dither
from core.megatron.state.dither import dither
from tests.support.ranks import run_ranks
from tests.support.tiny_models import tiny_model

POWER_OF_TWO = 0.125  # the interval below it is half as wide as that above


def on_grid(size: int = 50_000) -> Tensor:
    values = torch.randn(size, generator=torch.Generator().manual_seed(0)) / 20
    values[:5] = torch.tensor([0.0, -0.0, POWER_OF_TWO, -POWER_OF_TWO, 1e-40])
    return values.bfloat16().float()


def dithered(seed: int = 1, size: int = 50_000) -> Tensor:
    values = on_grid(size)
    dither([values], seed)
    return values


def interval(values: Tensor) -> Tensor:
    """From a bf16 number to the next: 8 bits of precision."""
    return torch.exp2(torch.floor(torch.log2(values.abs())) - 7)


def test_weights_stay_as_they_are() -> None:
    assert torch.equal(dithered().bfloat16(), on_grid().bfloat16())
    assert torch.equal(dithered()[:2], torch.zeros(2))


@pytest.mark.parametrize("sign", [1, -1], ids=["positive", "negative"])
def test_masters_are_evenly_distributed_in_their_intervals(sign: int) -> None:
    """On both sides of zero: a shift by sign would cancel out over all, and pull every weight towards zero or away."""
    grid, moved = (values[5:].double() for values in (on_grid(), dithered()))
    own = grid.sign() == sign
    place = ((moved - grid) / interval(grid))[own]
    assert place.numel() > 20_000
    assert -0.5 <= place.min() < -0.499
    assert 0.499 < place.max() <= 0.5
    assert abs(place.mean()) < 0.008, "four standard errors of 24,000 places"
    quarters = torch.histc(place, 4, -0.5, 0.5) / place.numel()
    assert torch.allclose(quarters, torch.full((4,), 0.25, dtype=torch.float64), atol=0.012)
    assert torch.equal(moved[own].bfloat16(), grid[own].bfloat16())
    assert not (moved == grid)[own].float().mean() > 1e-3, "next to none stays in the middle"


def test_noise_of_neighbours_is_independent() -> None:
    place = ((dithered() - on_grid()) / interval(on_grid()))[5:].double()
    product = (place[1:] * place[:-1]).mean() * 12  # 1 if equal, 0 on average if independent
    assert abs(product) < 0.02


def test_large_tensors_get_noise_in_every_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core.megatron.state.dither, "CHUNK", 1000)
    grid, moved = on_grid(2500), dithered(size=2500)
    place = ((moved - grid) / interval(grid))[5:]
    parts = place[:995], place[995:1995], place[1995:]
    assert [part.numel() for part in parts] == [995, 1000, 500]
    for part in parts:
        assert abs(part.std() - 12**-0.5) < 0.03
    assert not torch.equal(parts[1][:500], parts[2])


def test_weights_follow_a_small_update_on_average() -> None:
    """From the middle of the intervals a step of a tenth of one moves nothing."""
    grid = on_grid()[5:]
    step = 0.1 * interval(grid)
    moved = (dithered()[5:] + step).bfloat16().float() - grid
    assert abs((moved / step).mean() - 1) < 0.05
    assert torch.equal((grid + step).bfloat16().float(), grid)


def test_copies_agree_and_equal_sizes_differ() -> None:
    ours, theirs = [on_grid(), on_grid(), on_grid(10)], [on_grid(10), on_grid(), on_grid()]
    dither(ours, 1)
    dither(theirs, 1)
    assert torch.equal(ours[0], theirs[1])
    assert torch.equal(ours[1], theirs[2])
    assert torch.equal(ours[2], theirs[0])
    assert not torch.equal(ours[0], ours[1])
    assert not torch.equal(dithered(1), dithered(2))


def learnt(folder: Path, num_ranks: int, **placement: Any) -> tuple[list[Any], list[Any]]:
    """Weights before and after an update, of a trainer with dithered masters and of one without."""
    model = str(tiny_model("qwen3-tied", folder / "model"))
    config = {"model": {"dtype": "bfloat16"}, "placement": placement}
    actions = [["buckets", 4000], ["update", 0], ["buckets", 4000]]
    cases = {
        name: {"model": model, "config": {**config, "train": {"dither_masters": on}}, "actions": actions}
        for name, on in (("dithered", True), ("middle", False))
    }
    found = run_ranks(folder / "ranks", num_ranks, cases)
    return found["dithered"], found["middle"]


def test_a_trainer_begins_with_the_same_weights_and_learns_others(tmp_path: Path) -> None:
    dithered, middle = learnt(tmp_path, 1)
    assert dithered[0] == middle[0]
    assert dithered[2] != middle[2]


def test_copies_of_a_tied_embedding_on_two_stages_are_left_alone(tmp_path: Path) -> None:
    dithered, middle = learnt(tmp_path, 2, pipeline_parallel=2)
    assert dithered == middle
