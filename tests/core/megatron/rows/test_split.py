"""Rows cut for context-parallel ranks: every token once, the same attention, and as much work for each."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from core.megatron.attention.on_gpu import copied
from core.megatron.attention.packed import _blockwise
from core.megatron.attention.plan import AttentionPlan
from core.megatron.rows.packing import Row, pack
from core.megatron.rows.split import RowPart, split_row
from core.samples import TrainSample

RANKS = (2, 3, 8)


def make_row(lengths: list[tuple[int, list[int]]], seed: int = 0) -> Row:
    """A prompt length and its response lengths, for each group."""
    rng = random.Random(seed)
    samples = []
    for group, (prompt, responses) in enumerate(lengths):
        tokens = [rng.randrange(500) for _ in range(prompt)]
        for length in responses:
            response = [rng.randrange(500) for _ in range(length)]
            samples.append(TrainSample(group, tokens, response, [1] * length, 0.0, [0.0] * length, reward=0.0))
    ((row,),) = pack(samples, 10**9)
    return row


RNG = random.Random(1)
ROWS = {
    "one token": [(1, [1])],
    "one sample": [(5, [40])],
    "shared prompts": [(17, [30, 1, 29, 64]), (3, [8, 90]), (200, [5])],
    "many": [(RNG.randrange(1, 60), [RNG.randrange(1, 80) for _ in range(4)]) for _ in range(5)],
}


def parts(row: Row, ranks: int, multiple: int = 1) -> list[RowPart]:
    return [split_row(row, rank, ranks, multiple) for rank in range(ranks)]


@pytest.mark.parametrize("multiple", [1, 4])
@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize("name", ROWS)
def test_every_token_and_target_is_on_one_rank(name: str, ranks: int, multiple: int) -> None:
    row = make_row(ROWS[name])
    found = parts(row, ranks, multiple)
    sizes = {len(part.tokens) for part in found}
    wanted = -(-len(row.tokens) // ranks)
    assert sizes == {-(-wanted // multiple) * multiple}, "no rank waits for another by more than a token and padding"
    own = torch.cat([part.own_targets for part in found])
    assert torch.equal(own.sort().values, torch.arange(len(row.targets)))
    for part in found:
        assert sum(piece.length for piece in part.pieces) == len(part.tokens)
        assert torch.equal(part.targets, row.targets[part.own_targets])
        at = row.logit_index[part.own_targets]
        assert torch.equal(part.tokens[part.logit_index], row.tokens[at])
        assert torch.equal(part.positions[part.logit_index], row.positions[at])


def full_attention(row: Row, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    plan = AttentionPlan(row.segments)
    return _blockwise(q, k, v, plan, 0.3)


@pytest.mark.parametrize("kernel", ["blocks", "ragged"])
@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize("name", ROWS)
def test_same_attention_and_gradients(name: str, ranks: int, kernel: str) -> None:
    row = make_row(ROWS[name])
    generator = torch.Generator().manual_seed(0)
    q, k, v = (
        torch.randn(len(row.tokens), heads, 8, generator=generator, dtype=torch.float64, requires_grad=True)
        for heads in (4, 2, 2)
    )
    wanted = full_attention(row, q, k, v)
    weights = torch.randn(wanted.shape, generator=generator, dtype=torch.float64)
    expected = torch.autograd.grad((wanted * weights).sum(), (q, k, v))
    found = parts(row, ranks)
    places, own = whereabouts(row, found)
    keys, values = (functional.pad(x, (0, 0, 0, 0, 0, 1))[places] for x in (k, v))
    total = torch.zeros((), dtype=torch.float64)
    for part, mine in zip(found, own, strict=True):
        plan = AttentionPlan(part.pieces, num_keys=part.num_keys)
        queries = functional.pad(q[mine], (0, 0, 0, 0, 0, len(part.tokens) - len(mine)))
        attend = _blockwise if kernel == "blocks" else piece_by_piece
        out = attend(queries, keys, values, plan, 0.3)[: len(mine)]
        torch.testing.assert_close(out, wanted[mine], rtol=1e-9, atol=1e-9)
        total = total + (out * weights[mine]).sum()
    for ours, theirs in zip(torch.autograd.grad(total, (q, k, v)), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def whereabouts(row: Row, found: list[RowPart]) -> tuple[Tensor, list[Tensor]]:
    """Row position at each place of the gathered keys (T: padding), and those of each rank's own tokens.

    From a row whose tokens are their positions.
    """
    count = len(row.tokens)
    numbered = Row(torch.arange(count) + 1, *(getattr(row, name) for name in list(row.__dataclass_fields__)[1:]))
    labels = [part.tokens for part in parts(numbered, len(found))]
    own = [label[label > 0] - 1 for label in labels]
    return torch.cat([torch.where(label > 0, label - 1, count) for label in labels]), own


def piece_by_piece(q: Tensor, k: Tensor, v: Tensor, plan: AttentionPlan, scale: float) -> Tensor:
    """What a kernel for ragged sequences makes of the plan: causal from the bottom right, with copies of the keys."""
    ragged = plan.ragged
    assert not plan.is_plain
    assert plan.whole is None
    keys, values = (copied(rows, ragged.keys) for rows in (k, v))
    outputs = []
    bounds = zip(
        *(torch.stack((cu[:-1], cu[1:]), 1).tolist() for cu in (ragged.cu_queries, ragged.cu_keys)), strict=True
    )
    for (q0, q1), (k0, k1) in bounds:
        mask = torch.ones(q1 - q0, k1 - k0, dtype=torch.bool).tril(k1 - k0 - (q1 - q0))
        heads = [x.transpose(0, 1)[None] for x in (q[q0:q1], keys[k0:k1], values[k0:k1])]
        out = functional.scaled_dot_product_attention(*heads, attn_mask=mask, scale=scale, enable_gqa=True)  # type: ignore[misc]
        outputs.append(out[0].transpose(0, 1))
    return torch.cat(outputs)


@pytest.mark.parametrize("ranks", [2, 4, 8])
@pytest.mark.parametrize(
    "lengths",
    [[(64, [16000])], [(2000, [3000, 9000, 500, 4000]), (700, [12000, 100])]],
    ids=["one long answer", "answers of all lengths"],
)
def test_attention_is_shared_out_evenly(lengths: list[tuple[int, list[int]]], ranks: int) -> None:
    """The pairs of a query and a key, which cut down the middle would be 3 to 1 between two ranks."""
    pairs = [
        sum(piece.length * (piece.prefix_length + piece.length / 2) for piece in part.pieces)
        for part in parts(make_row(lengths), ranks)
    ]
    assert max(pairs) <= 1.02 * sum(pairs) / ranks
