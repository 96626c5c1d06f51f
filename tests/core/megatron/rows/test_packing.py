"""Rows against what they must mean: every token sees its own sequence, every target is predicted once."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from core.megatron.rows.packing import Row, build_row, pack, plan_rows
from core.samples import TrainSample


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


@pytest.mark.parametrize("share", [True, False], ids=["shared", "unshared"])
@pytest.mark.parametrize("seed", range(20))
def test_rows_keep_the_budget(seed: int, share: bool) -> None:
    """A group longer than a row is cut; only a sample that is longer by itself goes over, alone."""
    rng = random.Random(seed)
    sizes = [rng.randint(1, 12) for _ in range(rng.randint(1, 8))]
    samples = _samples(seed, sizes, response=rng.choice([5, 60]))
    budget, multiple = rng.choice([40, 64, 150]), rng.choice([1, 4])
    rows = [row for rows in pack(samples, budget, rng.randint(1, 4), share, multiple) for row in rows]
    for row in rows:
        padded = budget + -budget % multiple
        assert len(row.tokens) <= padded or len(set(row.sample_index.tolist())) == 1
    _check_meaning(samples, rows)


@pytest.mark.parametrize("share", [True, False], ids=["shared", "unshared"])
def test_a_row_is_filled_to_the_last_token_and_not_beyond(share: bool) -> None:
    """Two samples of 3 prompt and 4 response tokens, the last of which is no input."""
    samples = [TrainSample(0, [1, 2, 3], [4, 5, 6, 7], [1] * 4, 0.0, [0.0] * 4)] * 2
    both = 3 + 2 * 3 if share else 2 * (3 + 3)
    assert [len(pack(samples, budget, share_prompts=share)[0]) for budget in (both, both - 1)] == [1, 2]


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


def test_columns_are_integers_and_padding_begins_at_position_0() -> None:
    sample = TrainSample(0, [1, 2, 3], [4, 5, 6], [1] * 3, 0.0, [0.0] * 3)
    (padded,), (idle,) = pack([sample], 100, data_parallel=2, multiple=4)
    assert padded.positions.tolist() == [0, 1, 2, 3, 4, 0, 1, 2]
    assert idle.positions.tolist() == [0, 1, 2, 3]
    for row in (padded, idle):
        columns = (row.tokens, row.positions, row.logit_index, row.targets, row.sample_index, row.token_index)
        assert {column.dtype for column in columns} == {torch.int64}


def test_rows_are_not_padded_unless_asked() -> None:
    sample = TrainSample(0, [1, 2, 3], [4, 5, 6], [1] * 3, 0.0, [0.0] * 3)
    ((row,),) = pack([sample], 100)
    (((unit,),),) = plan_rows([sample], 100, 1, True)
    assert row.tokens.tolist() == build_row([sample], [unit]).tokens.tolist() == [1, 2, 3, 4, 5]


def _flops(rows: list[Row]) -> float:
    """Of a forward pass of one layer of 700 hidden units: its matrices, then queries by keys and weights by values.

    Counted from the rows as they are, not from what the plan thought of them.
    """
    hidden = 700
    pairs = sum(s.length * s.prefix_length + s.length * (s.length + 1) / 2 for row in rows for s in row.segments)
    return 24 * hidden**2 * sum(len(row.tokens) for row in rows) + 4 * hidden * pairs


def _imbalance(samples: list[TrainSample], max_tokens: int, data_parallel: int, share: bool = True) -> float:
    """Cost of the costliest rank over the least that it could be: an equal part, or one sample that is longer."""
    costs = [_flops(rows) for rows in pack(samples, max_tokens, data_parallel, share)]
    longest = max(_flops(pack([sample], max_tokens)[0]) for sample in samples)
    return max(costs) / max(longest, sum(costs) / data_parallel)


SHORT, LONG, UNEVEN = ((10, 40), 60, (4, 8)), ((50, 300), 3000, (2, 8)), ((10, 10), 1500, (1, 12))


@pytest.mark.parametrize("data_parallel", [2, 3, 4])
@pytest.mark.parametrize("kind", [SHORT, LONG, UNEVEN], ids=["short", "long", "uneven"])
def test_ranks_are_balanced(kind: tuple[tuple[int, int], int, tuple[int, int]], data_parallel: int) -> None:
    prompt, response, sizes = kind
    found = []
    for seed in range(10):
        rng = random.Random(seed)
        groups = [rng.randint(*sizes) for _ in range(rng.randint(4, 12))]
        budget = rng.choice([2 * response, 10**6])
        samples = _samples(seed, groups, prompt, response)
        found += [_imbalance(samples, budget, data_parallel, share) for share in (True, False)]
    assert max(found) < 1.15
    assert sum(found) / len(found) < 1.03


def test_a_group_is_shared_out_where_that_is_faster() -> None:
    """Eight equal responses, four ranks; the prompt is repeated on each."""
    samples = _samples(1, [1], prompt=(20, 20), response=20) * 8
    assert _imbalance(samples, 10_000, 4) == 1


def test_groups_that_are_balanced_as_they_are_hold_their_prompts_once() -> None:
    samples = [TrainSample(g, [g] * 20, [2] * 9, [1] * 9, 0.0, [0.0] * 9) for g in range(4) for _ in range(6)]
    rows = [row for rows in pack(samples, 10_000, 2) for row in rows]
    assert sum(len(row.tokens) for row in rows) == 4 * (20 + 6 * 8)


@pytest.mark.parametrize(
    ("prompt", "response", "size"),
    [(1, 8001, 1), (8000, 2, 1), (6000, 2001, 2)],
    ids=["long response", "long prompt", "long responses to a long prompt"],
)
def test_attention_counts_beside_tokens(prompt: int, response: int, size: int) -> None:
    """The dear group has no more tokens than twenty or so of the others, and costs twice as much."""
    dear = [TrainSample(0, [1] * prompt, [2] * response, [1] * response, 0.0, [0.0] * response)] * size
    cheap = [TrainSample(g, [1], [2] * 201, [1] * 201, 0.0, [0.0] * 201) for g in range(1, 161)]
    assert _imbalance([*dear, *cheap], 10**6, 2) < 1.01


def test_a_group_that_is_cut_fills_its_rows() -> None:
    """Eight responses of 10 inputs after a prompt of 10, four in each row of 50."""
    samples = [TrainSample(0, [1] * 10, [2] * 11, [1] * 11, 0.0, [0.0] * 11)] * 8
    assert [len(row.tokens) for row in pack(samples, 50)[0]] == [50, 50]


def test_more_ranks_than_samples_leaves_rows_without_targets() -> None:
    samples = _samples(0, [1])
    ranks = pack(samples, 100, data_parallel=3)
    assert [sum(len(row.targets) for row in rows) > 0 for rows in ranks] == [True, False, False]
    assert all(len(row.tokens) > 0 for rows in ranks for row in rows)


def test_rows_go_to_the_ranks_there_and_back() -> None:
    """Nine rows, longest first: 9 8 7, 4 5 6, 3 2 1; within a row units are in the order of samples."""
    samples = [replace(_samples(0, [1])[0], group=i, prompt_tokens=[1] * 20 * (i + 1)) for i in range(9)]
    plan = plan_rows(samples, 1, 3, True)
    assert [[unit.members for row in rank for unit in row] for rank in plan] == [
        [(8,), (3,), (2,)],
        [(7,), (4,), (1,)],
        [(6,), (5,), (0,)],
    ]
    assert [unit.members for unit in plan_rows(samples, 10_000, 1, True)[0][0]] == [(i,) for i in range(9)]


def test_one_rank_cuts_no_group() -> None:
    samples = _samples(0, [8, 8], prompt=(30, 30))
    assert [unit.members for row in plan_rows(samples, 10_000, 1, True)[0] for unit in row] == [
        tuple(range(8)),
        tuple(range(8, 16)),
    ]


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
