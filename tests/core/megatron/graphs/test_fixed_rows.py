"""Rows padded to fixed sizes: what counts is where it was, and nothing else counts."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor

import modelcfg
from core.megatron.attention import on_gpu as gpu_attention
from core.megatron.attention.plan import AttentionPlan, Ragged, key_counts
from core.megatron.graphs.fixed_rows import FixedRow, fixed_size, padded
from core.megatron.rows.packing import Row, build_row, pack, plan_rows
from core.megatron.sizes.graphs import FixedSize, expected_sizes, most_tokens
from core.samples import TrainSample


def row_of(prompt: int, lengths: list[int], share: bool = True) -> Row:
    """One group of responses."""
    samples = [
        TrainSample(0, list(range(1, prompt + 1)), list(range(5, 5 + n)), [1] * n, 1.0, [-1.0] * n) for n in lengths
    ]
    ((row,),) = pack(samples, 100_000, share_prompts=share)
    return row


ROWS = {
    "shared": row_of(30, [3, 40, 1, 17]),
    "alone": row_of(12, [60]),
    "unshared": row_of(9, [100, 3, 50], share=False),
    "full": row_of(100, [157]),
    "targets": row_of(1, [2] * 200),
}


@pytest.mark.parametrize("name", ROWS)
def test_every_token_and_key_is_where_it_was(name: str) -> None:
    row = ROWS[name]
    size = fixed_size(row, 4096)
    assert size is not None
    fixed = FixedRow(size, "cpu")
    fixed.fill(ROWS["alone"] if fixed_size(ROWS["alone"], 4096) == size else row)  # what was there before is gone
    fixed.fill(row)
    params, wanted = fixed.params(), AttentionPlan(row.segments)
    num_tokens, num_targets, num_segments = len(row.tokens), len(row.targets), len(row.segments)
    assert fixed.tokens[:num_tokens].tolist() == row.tokens.tolist()
    assert params.positions[:num_tokens].tolist() == row.positions.tolist()
    assert params.logit_index[:num_targets].tolist() == row.logit_index.tolist()
    assert params.targets[:num_targets].tolist() == row.targets.tolist()
    assert len(fixed.tokens) == len(params.logit_index) == len(params.targets) == size.tokens
    ragged = params.attention.ragged
    for name in ("cu_queries", "cu_keys"):
        found = getattr(ragged, name).tolist()
        assert found[: num_segments + 1] == getattr(wanted.ragged, name).tolist()
        assert found == sorted(found)
        assert len(found) == size.segments + 1
    assert int(ragged.cu_queries[-1]) == size.tokens
    assert max(key_counts(row.segments)) <= ragged.max_queries == ragged.max_keys
    assert max((ragged.cu_keys[1:] - ragged.cu_keys[:-1]).tolist()) <= ragged.max_keys
    assert params.attention.is_plain == wanted.is_plain
    assert params.attention.whole is None


@pytest.mark.parametrize("name", ["shared", "targets"])
def test_keys_and_their_gradients_are_those_of_the_row(name: str) -> None:
    row = ROWS[name]
    size = fixed_size(row, 4096)
    assert size is not None
    fixed = FixedRow(size, "cpu")
    fixed.fill(row)
    wanted, found = AttentionPlan(row.segments).ragged, fixed.params().attention.ragged
    num_tokens, num_keys = len(row.tokens), len(wanted.keys.rows)
    ours, theirs = (torch.randn(n, 2, 4, dtype=torch.float64) for n in (size.tokens, num_tokens))
    ours[:num_tokens] = theirs
    incoming = torch.randn(size.keys, 2, 4, dtype=torch.float64)
    incoming[int(found.cu_keys[-1]) :] = torch.nan  # nobody writes there
    packed, gradient = packed_and_gradient(ours, found, incoming)
    packed_before, gradient_before = packed_and_gradient(theirs, wanted, incoming[:num_keys])
    assert torch.equal(packed[:num_keys], packed_before)
    assert torch.equal(gradient[:num_tokens], gradient_before)
    assert bool(gradient.isfinite().all())


def packed_and_gradient(rows: Tensor, ragged: Ragged, incoming: Tensor) -> tuple[Tensor, Tensor]:
    leaf = rows.requires_grad_()
    packed = gpu_attention.copied(leaf, ragged.keys)
    packed.backward(incoming)
    assert leaf.grad is not None
    return packed.detach(), leaf.grad


def test_sizes_are_few() -> None:
    sizes = {fixed_size(row_of(30, [10 + i, 20, 30]), 4096) for i in range(60)}
    assert sizes == {FixedSize(256, 512, 128)}
    assert sizes <= set(expected_sizes(4096, 100, shared=True))


def test_rows_without_a_size() -> None:
    assert fixed_size(row_of(100, [3000]), 2048) is None
    assert fixed_size(row_of(2000, [2] * 30), 4096) is None  # each response has keys of its own
    empty = TrainSample(0, [1, 2], [], [], 1.0, [])
    ((units,),) = plan_rows([empty], 100, 1, share_prompts=True)
    assert fixed_size(build_row([empty], units, 4), 4096) is None


def test_a_row_fits_its_size() -> None:
    rng, fitting = random.Random(0), 0
    for _ in range(300):
        lengths = [rng.randrange(1, rng.choice([3, 30, 300])) for _ in range(rng.randrange(1, 60))]
        row = row_of(rng.randrange(1, rng.choice([3, 40, 400])), lengths, share=rng.random() < 0.8)
        if (size := fixed_size(row, 4096)) is not None:
            fitting += 1
            values = padded(row, size)
            assert len(values["keys"]) == size.keys
            assert {len(values[name]) for name in ("tokens", "positions", "logit_index", "targets")} == {size.tokens}
            assert {len(values[name]) for name in ("cu_queries", "cu_keys")} == {size.segments + 1}
    assert fitting > 100


@pytest.mark.parametrize("most", [256, 4096])
def test_rows_that_are_expected_have_a_size(most: int) -> None:
    expected = set(expected_sizes(most, 100, shared=True))
    assert all(size.tokens <= most for size in expected)
    for responses in range(2, 30):
        for length in (2, 12, 80):
            size = fixed_size(row_of(20, [length] * responses), most)
            assert size is None or size in expected


def test_larger_models_have_smaller_graphs() -> None:
    sizes = [most_tokens(modelcfg.load(name)) for name in ("smollm2-135m", "qwen3-1.7b", "qwen3-4b", "qwen3-8b")]
    assert sizes == [4096, 2048, 1024, 512]
