"""Planned attention against one dense masked attention over the whole row."""

from __future__ import annotations

import random
import weakref

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from core.megatron.attention import copies
from core.megatron.attention import on_gpu as gpu_attention
from core.megatron.attention import plan as attention_plan
from core.megatron.attention.packed import _blockwise
from core.megatron.attention.plan import AttentionPlan
from core.megatron.rows.packing import Segment


def _row(seed: int, lengths: list[tuple[int, list[int]]]) -> list[Segment]:
    """A prompt length and its response lengths, for each group."""
    segments: list[Segment] = []
    start = 0
    for prompt, responses in lengths:
        segments.append(Segment(start, prompt))
        first, start = start, start + prompt
        for length in responses:
            segments.append(Segment(start, length, first, prompt))
            start += length
    return segments


def _dense_mask(segments: list[Segment]) -> Tensor:
    total = sum(s.length for s in segments)
    mask = torch.zeros(total, total, dtype=torch.bool)
    for s in segments:
        rows = slice(s.start, s.start + s.length)
        mask[rows, rows] = torch.ones(s.length, s.length, dtype=torch.bool).tril()
        mask[rows, s.prefix_start : s.prefix_start + s.prefix_length] = True
    return mask


RNG = random.Random(0)
ROWS = {
    "one": [(5, [])],
    "groups": [(7, [3, 1, 9]), (2, [4])],
    "plain": [(n, []) for n in (3, 80, 11, 200)],
    "ragged": [(RNG.randrange(1, 150), [RNG.randrange(1, 120) for _ in range(4)]) for _ in range(4)],
}


@pytest.mark.parametrize("name", ROWS)
def test_matches_dense_attention(name: str) -> None:
    segments = _row(0, ROWS[name])
    plan = AttentionPlan(segments)
    total = sum(s.length for s in segments)
    generator = torch.Generator().manual_seed(1)
    q, k, v, upstream = (
        torch.randn(total, heads, 16, generator=generator, dtype=torch.float64) for heads in (6, 2, 2, 6)
    )
    results = []
    for dense in (True, False):
        inputs = [x.clone().requires_grad_() for x in (q, k, v)]
        out = _dense(*inputs, _dense_mask(segments)) if dense else _blockwise(*inputs, plan, 0.25)
        (out * upstream).sum().backward()
        results.append([out.detach(), *(x.grad for x in inputs if x.grad is not None)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("window", [None, 1, 5, 40, 1000])
@pytest.mark.parametrize("name", ROWS)
def test_windows_and_sinks_are_those_of_one_dense_softmax(name: str, window: int | None) -> None:
    segments = _row(0, ROWS[name])
    made = _made(sum(s.length for s in segments))
    results = []
    for dense in (True, False):
        q, k, v, sinks = (x.clone().requires_grad_() for x in made[:4])
        if dense:
            out = _dense_with_sinks(q, k, v, sinks, _dense_mask(segments) & _within(segments, window))
        else:
            out = _blockwise(q, k, v, AttentionPlan(segments), 0.25, window, sinks)
        (out * made[4]).sum().backward()
        results.append([out.detach(), *(x.grad for x in (q, k, v, sinks) if x.grad is not None)])
    assert len(results[0]) == 5
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("window", [None, 5, 40])
def test_the_kernel_for_gpus_is_called_for_windows_and_sinks(
    window: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in does what torch says of it: attention without sinks, and the gradients for the sums it is given."""
    segments = _row(0, ROWS["groups"])
    plan, made = AttentionPlan(segments), _made(sum(s.length for s in segments))
    mask = _dense_mask(segments) & _within(segments, window)
    monkeypatch.setattr(gpu_attention, "copied", lambda rows, _: rows)  # the stand-in has the mask of the row

    def logits(q: Tensor, k: Tensor) -> Tensor:
        found = torch.einsum("qgnd,kgd->gnqk", q.unflatten(1, (k.shape[1], -1)), k).flatten(0, 1) * 0.25
        return found.masked_fill(~mask, -torch.inf)

    def forward(q: Tensor, k: Tensor, v: Tensor, *_: object, **how: object) -> tuple[Tensor, ...]:
        wanted = {} if window is None else {"window_size_left": window - 1, "window_size_right": 0}
        assert how == {"scale": 0.25, **wanted}
        of_heads, empty = v.repeat_interleave(q.shape[1] // v.shape[1], 1), torch.empty(0)
        out = torch.einsum("hqk,khd->qhd", logits(q, k).softmax(-1), of_heads)
        return out, logits(q, k).logsumexp(-1), empty, empty, empty

    def backward(
        incoming: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, log_sum: Tensor, *_: object, **__: object
    ) -> tuple[Tensor, ...]:
        """FlashAttention-2, arXiv:2307.08691, algorithm 2."""
        share = (logits(q, k) - log_sum[..., None]).exp()  # [h, q, k]
        repeat = q.shape[1] // v.shape[1]
        for_v = torch.einsum("hqk,qhd->khd", share, incoming).unflatten(1, (-1, repeat)).sum(2)
        of_share = torch.einsum("qhd,khd->hqk", incoming, v.repeat_interleave(repeat, 1))
        of_logits = share * (of_share - (incoming * out).sum(-1).t()[..., None]) * 0.25
        for_q = torch.einsum("hqk,khd->qhd", of_logits, k.repeat_interleave(repeat, 1))
        for_k = torch.einsum("hqk,qhd->khd", of_logits, q).unflatten(1, (-1, repeat)).sum(2)
        return for_q, for_k, for_v

    monkeypatch.setattr(gpu_attention, "flash_forward", forward)
    monkeypatch.setattr(gpu_attention, "flash_backward", backward)
    results = []
    for ragged in (True, False):
        inputs = [x.clone().requires_grad_() for x in made[:4]]
        q, k, v, sinks = inputs
        attend = gpu_attention.ragged if ragged else _blockwise
        out = attend(q, k, v, plan, 0.25, window, sinks)
        (out * made[4]).sum().backward()
        results.append([out.detach(), *(x.grad for x in inputs if x.grad is not None)])
    assert len(results[0]) == 5
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def _made(total: int) -> list[Tensor]:
    """Queries of 6 heads, keys and values of 2, sinks, and what comes back."""
    generator = torch.Generator().manual_seed(1)
    sizes = ((total, 6, 16), (total, 2, 16), (total, 2, 16), (6,), (total, 6, 16))
    return [torch.randn(*size, generator=generator, dtype=torch.float64) for size in sizes]


def _within(segments: list[Segment], window: int | None) -> Tensor:
    """[T, T] whether a token's place in its sequence is less than a window behind another's."""
    place = torch.cat([torch.arange(s.prefix_length, s.prefix_length + s.length) for s in segments])
    return place[:, None] - place < (window or len(place))


def _dense_with_sinks(q: Tensor, k: Tensor, v: Tensor, sinks: Tensor, mask: Tensor) -> Tensor:
    keys, values = (x.repeat_interleave(3, 1) for x in (k, v))
    logits = torch.einsum("qhd,khd->hqk", q, keys) * 0.25
    logits = logits.masked_fill(~mask, -torch.inf)
    beside = sinks[:, None, None].expand(-1, len(q), 1)
    return torch.einsum("hqk,khd->qhd", torch.cat((logits, beside), -1).softmax(-1)[..., :-1], values)


def _dense(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    heads = [x.transpose(0, 1)[None] for x in (q, k, v)]
    out = functional.scaled_dot_product_attention(*heads, attn_mask=mask, scale=0.25, enable_gqa=True)  # type: ignore[misc]
    return out[0].transpose(0, 1)


def test_ragged_indices_say_the_same() -> None:
    segments = _row(0, ROWS["ragged"])
    plan, mask = AttentionPlan(segments).ragged, _dense_mask(segments)
    for number, segment in enumerate(segments):
        keys = plan.keys.rows[plan.cu_keys[number] : plan.cu_keys[number + 1]]
        last = segment.start + segment.length - 1
        assert sorted(keys.tolist()) == mask[last].nonzero()[:, 0].tolist()
    assert plan.cu_queries.tolist()[-1] == len(mask)


def test_gradients_of_shared_keys_are_added_up() -> None:
    segments = _row(0, ROWS["ragged"])
    plan = AttentionPlan(segments).ragged
    generator = torch.Generator().manual_seed(2)
    ours = torch.randn(sum(s.length for s in segments), 2, 4, generator=generator, dtype=torch.float64).requires_grad_()
    theirs = ours.detach().clone().requires_grad_()
    incoming = torch.randn(len(plan.keys.rows), 2, 4, generator=generator, dtype=torch.float64)
    packed = gpu_attention.copied(ours, plan.keys)
    packed.backward(incoming)
    wanted = theirs.index_select(0, plan.keys.rows)
    wanted.backward(incoming)
    assert torch.equal(packed, wanted)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-12, atol=1e-12)


def test_padding_stays_small_and_blocks_few() -> None:
    segments = _row(0, [(RNG.randrange(200, 800), [RNG.randrange(50, 900) for _ in range(8)]) for _ in range(8)])
    blocks = AttentionPlan(segments).blocks().blocks
    own = sum(s.length * (s.prefix_length + s.length) for s in segments)
    padded = sum(b.queries.numel() * b.keys.shape[1] for b in blocks)
    assert padded <= 1.5 * own
    assert len(blocks) <= len(segments) / 2


def _causal(q: Tensor, k: Tensor, v: Tensor, number: int, scale: float) -> Tensor:
    heads = [x.unflatten(0, (number, -1)).transpose(1, 2) for x in (q, k, v)]
    out = functional.scaled_dot_product_attention(*heads, is_causal=True, scale=scale, enable_gqa=True)  # type: ignore[misc]
    return out.transpose(1, 2).flatten(0, 1)


@pytest.mark.parametrize(
    ("row", "calls"),
    [
        ([(40, [600]), (700, [])], ((1, 256), (2, 768))),
        ([(9, [300, 400, 310, 200])], ((2, 256), (3, 512))),
        ([(256, []), (512, [])], ((1, 256), (1, 512))),
        ([(512, []), (256, [])], ((1, 256), (1, 512))),
    ],
    ids=["lone", "group", "fits", "fits in another order"],
)
def test_whole_sequences_give_the_same(
    row: list[tuple[int, list[int]]], calls: tuple[tuple[int, int], ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention_plan, "WHOLE_MIN_LENGTH", 1)
    monkeypatch.setattr(attention_plan, "MAX_REPEATED", 10.0)
    monkeypatch.setattr(gpu_attention, "_dense", _causal)
    segments = _row(0, row)
    plan = AttentionPlan(segments)
    assert plan.whole is not None
    assert plan.whole.calls == calls
    assert plan.whole.is_row == (row[0][0] == 256)
    generator = torch.Generator().manual_seed(0)
    num_tokens = sum(s.length for s in segments)
    made = [torch.randn(num_tokens, heads, 8, generator=generator, dtype=torch.float64) for heads in (4, 2, 2)]
    incoming = torch.randn(num_tokens, 4, 8, generator=generator, dtype=torch.float64)
    results = []
    for whole in (True, False):
        q, k, v = (tensor.clone().requires_grad_() for tensor in made)
        out = (
            gpu_attention._whole_sequences(q, k, v, plan, plan.whole, 0.3) if whole else _blockwise(q, k, v, plan, 0.3)
        )
        out.backward(incoming)
        results.append([out.detach(), q.grad, k.grad, v.grad])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_nothing_that_is_gathered_is_kept_for_the_backward_pass() -> None:
    segments = _row(0, [(100, [3000, 2000])])
    whole = AttentionPlan(segments).whole
    assert whole is not None
    leaf = torch.ones(sum(s.length for s in segments), 2, 4, requires_grad=True)
    for gather in (
        lambda rows, whole: copies.to_sequences(rows, whole.copies.rows, whole.own),
        lambda rows, whole: gpu_attention.copied(rows, whole.copies),
    ):
        rows = leaf * 2
        sequences = gather(rows, whole)
        row = copies.to_row(sequences, whole.own)
        held = weakref.ref(rows), weakref.ref(sequences)
        del rows, sequences
        assert [one() for one in held] == [None, None]
        row.sum().backward()


def test_short_or_wasteful_rows_are_not_made_whole() -> None:
    assert AttentionPlan(_row(0, [(100, [50, 60])])).whole is None  # short
    assert AttentionPlan(_row(0, [(4000, [200] * 8)])).whole is None  # the prompt would be computed eight times
    assert AttentionPlan(_row(0, [(100, [3000, 2000])])).whole is not None
