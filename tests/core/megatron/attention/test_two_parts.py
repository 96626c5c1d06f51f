"""A rank's pieces in two calls each, by kernels of a CPU, against attention in masked blocks; on a GPU by cuDNN's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from core.megatron.attention import on_gpu, plan, squares, two_parts
from core.megatron.attention.packed import _blockwise
from core.megatron.attention.plan import AttentionPlan
from core.megatron.attention.squares import Call, plan_squares
from core.megatron.rows.packing import build_row, plan_rows
from core.megatron.rows.split import RowPart, split_row
from core.samples import TrainSample

HEADS, GROUPS, WIDTH = 6, 2, 16
ROWS = {  # prompt and responses of each group
    "one": [(3, [70])],
    "fits": [(32, [97])],
    "shared": [(40, [33, 50, 61]), (5, [90])],
    "several": [(60, [20]), (1, [44]), (30, [70])],
}


def _parts(groups: list[tuple[int, list[int]]], ranks: int, multiple: int = 1) -> list[RowPart]:
    """What each context-parallel rank has of a row."""
    samples = [
        TrainSample(number, [1] * prompt, [1] * length, [1] * length, 1.0, [-1.0] * length)
        for number, (prompt, lengths) in enumerate(groups)
        for length in lengths
    ]
    ((units,),) = plan_rows(samples, 10**6, 1, share_prompts=True)
    row = build_row(samples, units)
    return [split_row(row, rank, ranks, multiple) for rank in range(ranks)]


def _cpu_forward(query: Tensor, key: Tensor, value: Tensor, *, causal: bool, scale: float) -> tuple[Any, ...]:
    repeat = query.shape[1] // key.shape[1]
    key, value = (rows.repeat_interleave(repeat, 1) for rows in (key, value))
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    out, log_sum = kernel(query, key, value, 0.0, causal, scale=scale)
    return out, log_sum[..., None], repeat


def _cpu_backward(
    incoming: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    log_sum: Tensor,
    repeat: int,
    *,
    causal: bool,
    scale: float,
) -> tuple[Tensor, ...]:
    key, value = (rows.repeat_interleave(repeat, 1) for rows in (key, value))
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
    log_sum = log_sum.squeeze(-1)
    of_query, *others = kernel(incoming, query, key, value, out, log_sum, 0.0, causal, scale=scale)
    return of_query, *(one.unflatten(1, (-1, repeat)).sum(2) for one in others)


@pytest.fixture
def on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels of a CPU in the place of cuDNN's, and few tokens in the place of many."""
    monkeypatch.setattr(two_parts, "kernel_forward", _cpu_forward)
    monkeypatch.setattr(two_parts, "kernel_backward", _cpu_backward)
    monkeypatch.setattr(squares, "MULTIPLE", 8)


def _made(num_tokens: int, num_keys: int) -> list[Tensor]:
    """Queries, keys, values, and what comes back."""
    generator = torch.Generator().manual_seed(num_tokens)
    sizes = (num_tokens, HEADS), (num_keys, GROUPS), (num_keys, GROUPS), (num_tokens, HEADS)
    return [torch.randn(*size, WIDTH, generator=generator) for size in sizes]


def _passed(attend: Callable[..., Tensor], made: list[Tensor]) -> list[Tensor]:
    """The output and three gradients."""
    inputs = [tensor.detach().clone().requires_grad_() for tensor in made[:3]]
    out = attend(*inputs)
    out.backward(made[3].to(out.dtype))
    return [out.detach(), *(one.grad for one in inputs if one.grad is not None)]


@pytest.mark.parametrize("ranks", [2, 3])
@pytest.mark.parametrize("name", ROWS)
@pytest.mark.usefixtures("on_a_cpu")
def test_the_same_as_in_blocks(name: str, ranks: int) -> None:
    for part in _parts(ROWS[name], ranks, multiple=4):
        planned = plan_squares(part.pieces, "cpu", part.num_keys)
        made = _made(len(part.tokens), part.num_keys)
        of_rank = AttentionPlan(part.pieces, "cpu", part.num_keys)
        ours = _passed(lambda q, k, v, planned=planned: two_parts.in_two_parts(q, k, v, planned, 0.3), made)
        theirs = _passed(lambda q, k, v, of_rank=of_rank: _blockwise(q, k, v, of_rank, 0.3), made)
        assert len(ours) == len(theirs) == 4
        for found, wanted in zip(ours, theirs, strict=True):
            assert float((found - wanted).norm()) <= 1e-6 * float(wanted.norm())


@pytest.mark.usefixtures("on_a_cpu")
def test_what_is_called() -> None:
    first, second = _parts([(32, [97])], 2)  # 128 tokens, chunks of 32
    planned = [plan_squares(part.pieces, "cpu", part.num_keys) for part in (first, second)]
    assert planned[0].calls == (Call(1, 0, 32), Call(1, 96, 32))
    assert planned[1].calls == (Call(1, 32, 64),)  # its two chunks lie side by side
    assert all(one.is_row for one in planned)
    (odd,) = plan_squares(_parts([(3, [70])], 2)[1].pieces, "cpu", 72).calls  # queries 18 to 53 of 72
    assert odd == Call(1, 16, 40)


@pytest.mark.usefixtures("on_a_cpu")
def test_pieces_of_one_shape_share_a_call() -> None:
    (first, _) = _parts([(32, [33, 33, 33])], 2)
    calls = plan_squares(first.pieces, "cpu", first.num_keys).calls
    assert calls == (Call(1, 0, 8), Call(1, 24, 8), Call(3, 32, 8), Call(3, 56, 8))


def test_long_pieces_of_a_part_are_planned_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def squares_of(prompt: int, responses: list[int]) -> bool:
        part = _parts([(prompt, responses)], 2)[0]
        return AttentionPlan(part.pieces, "cpu", part.num_keys).squares is not None

    assert squares_of(100, [8000])
    assert squares_of(4000, [6000, 8000])
    assert not squares_of(100, [2000])  # chunks of 525 tokens
    monkeypatch.setattr(plan, "WHOLE_MIN_LENGTH", 1)
    assert not squares_of(10, [300])  # padded to 256 tokens each
    assert AttentionPlan(_parts([(100, [8000])], 1)[0].pieces).squares is None  # a row that is not shared out


@pytest.mark.usefixtures("on_a_cpu")
def test_it_is_taken_where_cudnn_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where windows, sinks or wide heads are not, and pieces are long."""
    monkeypatch.setattr(plan, "WHOLE_MIN_LENGTH", 1)
    monkeypatch.setattr(on_gpu, "_cudnn_takes", lambda _: True)
    part = _parts(ROWS["one"], 2)[0]
    made = _made(len(part.tokens), part.num_keys)
    of_rank = AttentionPlan(part.pieces, "cpu", part.num_keys)
    assert of_rank.squares is not None
    ours = _passed(lambda q, k, v: on_gpu.ragged(q, k, v, of_rank, 0.3), made)
    theirs = _passed(lambda q, k, v: _blockwise(q, k, v, of_rank, 0.3), made)
    for found, wanted in zip(ours, theirs, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize(
    "row", [[(100, [8000])], [(3000, [5000, 7777, 6000])], [(1024, [7169])]], ids=["odd", "shared", "fits"]
)
@pytest.mark.parametrize("groups", [8, 2])
def test_cudnn_gives_the_same(row: list[tuple[int, list[int]]], groups: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against FlashAttention and against float32: both are rounded alike."""
    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    for part in _parts(row, 2):
        of_rank = AttentionPlan(part.pieces, "cuda", part.num_keys)
        assert of_rank.squares is not None
        torch.manual_seed(0)
        sizes = ((len(part.tokens), 8), (part.num_keys, groups), (part.num_keys, groups), (len(part.tokens), 8))
        made = [torch.randn(*size, 128, device="cuda").bfloat16() for size in sizes]
        wanted = _passed(lambda q, k, v, p=of_rank: _blockwise(q, k, v, p, 0.1), [one.float() for one in made])
        apart = {}
        for kernel in ("two parts", "flash"):
            monkeypatch.setattr(on_gpu, "USE_CUDNN", kernel == "two parts")
            found = _passed(lambda q, k, v, p=of_rank: on_gpu.ragged(q, k, v, p, 0.1), made)
            assert len(found) == len(wanted) == 4
            apart[kernel] = [float((a.float() - b).norm() / b.norm()) for a, b in zip(found, wanted, strict=True)]
        assert max(apart["two parts"]) < 1e-2, apart
        assert all(a < 2 * b for a, b in zip(apart["two parts"], apart["flash"], strict=True)), apart
