"""Rows against what they must mean: every token sees its own sequence, every target is predicted once."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from core.packing import Row, TrainSample, pack, plan_rows


def _samples(seed: int, sizes: list[int], prompt: tuple[int, int] = (1, 30), response: int = 20) -> list[TrainSample]:
    rng = random.Random(seed)
    samples = []
    for group, size in enumerate(sizes):
        prompt_tokens = [rng.randrange(1, 1000) for _ in range(rng.randint(*prompt))]
        for _ in range(size):
            tokens = [rng.randrange(1, 1000) for _ in range(rng.randint(1, response))]
            samples.append(TrainSample(group, prompt_tokens, tokens, [1] * len(tokens), 0.0, [0.0] * len(tokens)))
    return samples


def _context(row: Row, position: int) -> list[int]:
    """Tokens that a row position sees, itself last."""
    for s in row.segments:
        if s.start <= position < s.start + s.length:
            seen = [*range(s.prefix_start, s.prefix_start + s.prefix_length), *range(s.start, position + 1)]
            return row.tokens[seen].tolist()
    raise AssertionError(f"no segment holds {position}")


def _check_meaning(samples: list[TrainSample], rows: list[Row]) -> None:
    """Each target's context is exactly its prompt and the response tokens before it, at the right position."""
    met = []
    for row in rows:
        covered = sorted(p for s in row.segments for p in range(s.start, s.start + s.length))
        assert covered == list(range(len(row.tokens)))
        columns = (row.logit_index, row.targets, row.sample_index, row.token_index)
        for position, target, sample, token in zip(*(c.tolist() for c in columns), strict=True):
            wanted = [*samples[sample].prompt_tokens, *samples[sample].response_tokens[:token]]
            assert _context(row, position) == wanted
            assert row.positions[position] == len(wanted) - 1
            assert target == samples[sample].response_tokens[token]
            met.append((sample, token))
    assert sorted(met) == [(i, t) for i, s in enumerate(samples) for t in range(len(s.response_tokens))]


@pytest.mark.parametrize("share", [True, False], ids=["shared", "unshared"])
@pytest.mark.parametrize("max_tokens", [10_000, 120, 25, 1], ids=lambda n: f"budget{n}")
@pytest.mark.parametrize("data_parallel", [1, 2, 3])
def test_every_target_sees_its_own_sequence(share: bool, max_tokens: int, data_parallel: int) -> None:
    samples = _samples(0, [4, 1, 3, 5])
    ranks = pack(samples, max_tokens, data_parallel, share)
    assert len({len(rows) for rows in ranks}) == 1
    _check_meaning(samples, [row for rows in ranks for row in rows])


@pytest.mark.parametrize("seed", range(5))
def test_rows_keep_the_budget(seed: int) -> None:
    samples = _samples(seed, [8] * 6)
    for row in (row for rows in pack(samples, 150, 2) for row in rows):
        assert len(row.tokens) <= 150


def test_a_sample_over_the_budget_gets_a_row_of_its_own() -> None:
    samples = _samples(0, [1, 1, 1], response=5)
    long = TrainSample(7, [1] * 50, [2] * 60, [1] * 60, 0.0, [0.0] * 60)
    rows = [row for rows in pack([*samples, long], 40) for row in rows]
    assert [set(row.sample_index.tolist()) for row in rows if 3 in row.sample_index] == [{3}]
    _check_meaning([*samples, long], rows)


def test_a_shared_prompt_is_held_once() -> None:
    samples = _samples(0, [6], prompt=(30, 30))
    (row,) = pack(samples, 10_000)[0]
    assert len(row.tokens) == 30 + sum(len(s.response_tokens) - 1 for s in samples)


def test_equal_groups_with_other_prompts_do_not_share() -> None:
    a, b = (TrainSample(0, [p, p], [5, 6], [1, 1], 0.0, [0.0, 0.0]) for p in (1, 2))
    _check_meaning([a, b], pack([a, b], 100)[0])


@pytest.mark.parametrize("multiple", [2, 4, 8])
def test_padding_reaches_a_multiple_and_predicts_nothing(multiple: int) -> None:
    samples = _samples(3, [3, 2])
    rows = [row for rows in pack(samples, 60, multiple=multiple) for row in rows]
    assert all(len(row.tokens) % multiple == 0 for row in rows)
    _check_meaning(samples, rows)


@pytest.mark.parametrize(("sizes", "data_parallel"), [([8] * 8, 2), ([8] * 8, 4), ([8, 1, 1, 1, 1], 2), ([8], 4)])
def test_ranks_are_balanced(sizes: list[int], data_parallel: int) -> None:
    samples = _samples(1, sizes, prompt=(20, 20))
    ranks = plan_rows(samples, 10_000, data_parallel, share_prompts=True)
    costs = [sum(unit.cost for units in rows for unit in units) for rows in ranks]
    assert max(costs) <= 1.35 * sum(costs) / len(costs)


def test_more_ranks_than_samples_leaves_rows_without_targets() -> None:
    samples = _samples(0, [1])
    ranks = pack(samples, 100, data_parallel=3)
    assert [sum(len(row.targets) for row in rows) > 0 for rows in ranks] == [True, False, False]
    assert all(len(row.tokens) > 0 for rows in ranks for row in rows)


def test_plan_is_deterministic() -> None:
    samples = _samples(5, [4] * 10)
    first, second = (plan_rows(samples, 100, 3, True) for _ in range(2))
    assert first == second


def test_few_rows() -> None:
    """No more rows than the budget asks for, give or take what does not divide."""
    samples = _samples(2, [4] * 20)
    rows = pack(samples, 200)[0]
    total = sum(len(row.tokens) for row in rows)
    assert len(rows) <= total / 200 * 1.3 + 1
    assert all(a is not b for a, b in pairwise(rows))


def test_empty_prompt_is_refused() -> None:
    with pytest.raises(ValueError, match="sample 0 of group 4 has an empty prompt"):
        pack([TrainSample(4, [], [1], [1], 0.0, [0.0])], 100)


def test_empty_response_has_no_targets() -> None:
    samples = [TrainSample(0, [1, 2], [], [], 0.0, []), TrainSample(0, [1, 2], [3], [1], 0.0, [0.0])]
    _check_meaning(samples, pack(samples, 100)[0])
