"""Products over all experts at once against a plain loop over them: in Triton's interpreter, compiled on a GPU."""

from __future__ import annotations

import os

import pytest
import torch
from torch import Tensor

from core.megatron.layers import grouped_experts
from core.megatron.layers.expert_places import ExpertTensors, Slots, Tiles

GPU = torch.cuda.is_available()
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
pytest.importorskip("triton")
if GPU or INTERPRETED:
    from core.megatron.layers.fused import expert_rows, grouped
    from core.megatron.layers.fused.grouped import Tiling

DEVICE = "cuda" if GPU else "cpu"
TOLERANCE = {torch.float32: {"rtol": 1e-4, "atol": 1e-4}, torch.bfloat16: {"rtol": 3e-2, "atol": 3e-2}}
NUM_TOKENS, NUM_EXPERTS, CHOSEN, HIDDEN, WIDTH = 37, 5, 2, 48, 24
runs_kernels = pytest.mark.skipif(not (GPU or INTERPRETED), reason="runs in the interpreter's process")
no_bf16 = pytest.mark.skipif(INTERPRETED, reason="the interpreter multiplies the bits of bfloat16")
products_of = pytest.mark.parametrize(
    "dtype", [torch.float32, pytest.param(torch.bfloat16, marks=no_bf16)], ids=["fp32", "bf16"]
)
both_dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])


def noise(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE, dtype)


def chosen() -> Tensor:
    """[T, k] experts; nobody chooses the last but one."""
    scores = torch.rand(NUM_TOKENS, NUM_EXPERTS, generator=torch.Generator().manual_seed(3))
    scores[:, NUM_EXPERTS - 2] = -1
    return scores.topk(CHOSEN, dim=1).indices.to(DEVICE)


def test_slots_are_sorted_by_expert() -> None:
    choice = chosen()
    slots = Slots.of(choice, NUM_EXPERTS)
    assert slots.token is not None
    assert slots.place is not None
    assert slots.starts[0] == 0
    assert slots.starts[-1] == NUM_TOKENS * CHOSEN
    for expert in range(NUM_EXPERTS):
        tokens = slots.token[slots.starts[expert] : slots.starts[expert + 1]].tolist()
        assert tokens == (choice == expert).any(1).nonzero().flatten().tolist()
    for token in range(NUM_TOKENS):
        for number in range(CHOSEN):
            slot = int(slots.place[token, number])
            assert int(slots.token[slot]) == token
            assert int(slots.starts[choice[token, number]]) <= slot < int(slots.starts[choice[token, number] + 1])


@pytest.mark.parametrize("size", [1, 8, 64])
def test_tiles_cover_each_slot_once_and_are_of_one_expert(size: int) -> None:
    starts = Slots.of(chosen(), NUM_EXPERTS).starts
    tiles = Tiles.of(starts, NUM_TOKENS * CHOSEN, size)
    seen = []
    for expert, row in zip(tiles.expert.tolist(), tiles.row.tolist(), strict=True):
        if expert >= 0:
            seen += [(expert, slot) for slot in range(row, min(row + size, int(starts[expert + 1])))]
    assert [slot for _, slot in seen] == list(range(NUM_TOKENS * CHOSEN))
    assert all(int(starts[expert]) <= slot for expert, slot in seen)
    assert tiles.number <= NUM_TOKENS * CHOSEN // size + NUM_EXPERTS


def test_tensors_that_move_are_found_again() -> None:
    whole = torch.arange(24.0)
    table = ExpertTensors()
    first = table.at([whole[8:12], whole[0:4], whole[20:24]]).distances
    assert first.tolist() == [0, -8, 12]
    assert table.at([whole[8:12], whole[0:4], whole[20:24]]).distances is first
    assert table.at([whole[0:4], whole[8:12], whole[20:24]]).distances.tolist() == [0, 8, 20]


def tensors(rows: int, columns: int, dtype: torch.dtype, seed: int) -> list[Tensor]:
    """One per expert, in another order in memory than theirs."""
    whole = noise(NUM_EXPERTS, rows, columns, dtype=dtype, seed=seed)
    return [whole[(expert * 2) % NUM_EXPERTS] for expert in range(NUM_EXPERTS)]


@runs_kernels
@products_of
@pytest.mark.parametrize("transposed", [False, True], ids=["as they are", "transposed"])
@pytest.mark.parametrize("gather", [False, True], ids=["slots", "tokens"])
@pytest.mark.parametrize("summed", [16, 64], ids=["even", "cut"])
def test_product(dtype: torch.dtype, transposed: bool, gather: bool, summed: int) -> None:
    slots = Slots.of(chosen(), NUM_EXPERTS)
    assert slots.token is not None
    rows = noise(NUM_TOKENS if gather else NUM_TOKENS * CHOSEN, HIDDEN, dtype=dtype)
    weights = tensors(HIDDEN, WIDTH, dtype, 1) if transposed else tensors(WIDTH, HIDDEN, dtype, 1)
    how = Tiling(rows=16, columns=16, summed=summed, warps=4)
    tiles = Tiles.of(slots.starts, NUM_TOKENS * CHOSEN, how.rows)
    index = slots.token if gather else None
    found = grouped.product(rows, index, ExpertTensors().at(weights), tiles, how, transposed=transposed)
    of_slots = rows[slots.token.long()] if gather else rows
    for expert in range(NUM_EXPERTS):
        part = slice(int(slots.starts[expert]), int(slots.starts[expert + 1]))
        weight = weights[expert].double() if transposed else weights[expert].double().t()
        torch.testing.assert_close(found[part].double(), of_slots[part].double() @ weight, **TOLERANCE[dtype])


@runs_kernels
@products_of
def test_weight_gradients_are_added(dtype: torch.dtype) -> None:
    slots = Slots.of(chosen(), NUM_EXPERTS)
    assert slots.token is not None
    left, right = noise(NUM_TOKENS * CHOSEN, WIDTH, dtype=dtype), noise(NUM_TOKENS, HIDDEN, dtype=dtype, seed=1)
    gradients = tensors(WIDTH, HIDDEN, torch.float32, 2)
    before = [gradient.clone() for gradient in gradients]
    how = Tiling(rows=16, columns=32, summed=16, warps=4)
    grouped.add_weight_gradients(left, None, right, slots.token, slots.starts, ExpertTensors().at(gradients), how)
    other = noise(NUM_TOKENS, WIDTH, dtype=dtype, seed=5)
    grouped.add_weight_gradients(
        other, slots.token, right[slots.token.long()], None, slots.starts, ExpertTensors().at(gradients), how
    )
    for expert in range(NUM_EXPERTS):
        part = slice(int(slots.starts[expert]), int(slots.starts[expert + 1]))
        tokens = slots.token[part].long()
        wanted = before[expert].double() + (left[part].double() + other[tokens].double()).t() @ right[tokens].double()
        torch.testing.assert_close(gradients[expert].double(), wanted, rtol=1e-4, atol=1e-4)


@runs_kernels
@both_dtypes
def test_gated(dtype: torch.dtype) -> None:
    both, weight = noise(NUM_TOKENS, 2 * WIDTH, dtype=dtype), noise(NUM_TOKENS, dtype=dtype, seed=1)
    incoming = noise(NUM_TOKENS, WIDTH, dtype=dtype, seed=2)
    leaf, by = both.double().requires_grad_(), weight.double().requires_grad_()
    gate, up = leaf.chunk(2, -1)
    wanted = torch.nn.functional.silu(gate) * up * by[:, None]
    wanted.backward(incoming.double())
    torch.testing.assert_close(expert_rows.gated(both, weight).double(), wanted.detach(), **TOLERANCE[dtype])
    found = expert_rows.gated_backward(both, weight, incoming)
    for one, other in zip(found, (leaf.grad, by.grad, wanted.detach()), strict=True):
        torch.testing.assert_close(one.double(), other, **TOLERANCE[dtype])


@runs_kernels
@both_dtypes
def test_gated_within_a_limit(dtype: torch.dtype) -> None:
    both, weight = 2 * noise(NUM_TOKENS, 2 * WIDTH, dtype=dtype), noise(NUM_TOKENS, dtype=dtype, seed=1)
    incoming = noise(NUM_TOKENS, WIDTH, dtype=dtype, seed=2)
    leaf, by = both.double().requires_grad_(), weight.double().requires_grad_()
    gate, up = leaf.chunk(2, -1)
    gate, up = gate.clamp(max=1.5), up.clamp(-1.5, 1.5)
    wanted = gate * torch.sigmoid(1.702 * gate) * (up + 1) * by[:, None]
    wanted.backward(incoming.double())
    torch.testing.assert_close(expert_rows.gated(both, weight, 1.5).double(), wanted.detach(), **TOLERANCE[dtype])
    found = expert_rows.gated_backward(both, weight, incoming, 1.5)
    for one, other in zip(found, (leaf.grad, by.grad, wanted.detach()), strict=True):
        torch.testing.assert_close(one.double(), other, **TOLERANCE[dtype])


@runs_kernels
@pytest.mark.parametrize("placed", [True, False], ids=["tokens", "sorted"])
def test_experts_with_biases_and_a_limit(placed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """All gradients are those of a plain loop over the experts."""
    monkeypatch.setattr(grouped_experts, "grouped", grouped)
    monkeypatch.setattr(grouped_experts, "expert_rows", expert_rows)
    choice, scores = chosen(), noise(NUM_TOKENS, CHOSEN, seed=4).sigmoid()
    hidden, incoming = noise(NUM_TOKENS, HIDDEN), noise(NUM_TOKENS, HIDDEN, seed=5)
    slots = Slots.of(choice, NUM_EXPERTS)
    assert slots.token is not None
    if not placed:  # each slot a row of its own
        order = choice.flatten().sort(stable=True)
        hidden, incoming = hidden[slots.token.long()], incoming[slots.token.long()]
        scores = scores.flatten()[order.indices]
        slots = Slots.sorted(torch.bincount(order.values, minlength=NUM_EXPERTS), hidden.device)
        choice = order.values[:, None]
    sizes = ((2 * WIDTH, HIDDEN), (HIDDEN, WIDTH), (2 * WIDTH,), (HIDDEN,))
    leaves = [[noise(*size, seed=7 * i + e) for e in range(NUM_EXPERTS)] for i, size in enumerate(sizes)]
    results = []
    for ours in (True, False):
        inputs = [x.clone().requires_grad_() for x in (hidden, scores)]
        weights = [[torch.nn.Parameter(x.clone()) for x in of_all] for of_all in leaves]
        for weight in (*weights[0], *weights[1]):
            weight.main_grad = torch.zeros_like(weight)  # type: ignore[attr-defined]
        if ours:
            parts = [grouped_experts.Projection(of_all) for of_all in weights[:2]]
            out = grouped_experts.Products(*parts, *weights[2:], limit=1.5)(*inputs, slots)
        else:
            out = _loop(*inputs, choice, *weights)
        (out * incoming).sum().backward()
        gradients = [
            weight.main_grad if ours and weight.ndim == 2 else weight.grad  # type: ignore[attr-defined]
            for of_all in weights
            for weight in of_all
        ]
        none = [torch.zeros(()) if one is None else one for one in gradients]
        results.append([out.detach(), *(x.grad for x in inputs), *none])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other.expand_as(one), rtol=1e-3, atol=1e-3)


def _loop(
    hidden: Tensor,
    scores: Tensor,
    choice: Tensor,
    first: list[Tensor],
    second: list[Tensor],
    first_biases: list[Tensor],
    second_biases: list[Tensor],
) -> Tensor:
    out = torch.zeros_like(hidden)
    for expert in range(NUM_EXPERTS):
        by = (scores.view(choice.shape) * (choice == expert)).sum(1, keepdim=True)
        gate, up = (hidden @ first[expert].t() + first_biases[expert]).chunk(2, -1)
        gate, up = gate.clamp(max=1.5), up.clamp(-1.5, 1.5)
        gated = gate * torch.sigmoid(1.702 * gate) * (up + 1)
        out = out + by * (gated @ second[expert].t() + second_biases[expert])
    return out


@runs_kernels
@both_dtypes
def test_sum_of_slots(dtype: torch.dtype) -> None:
    slots = Slots.of(chosen(), NUM_EXPERTS)
    assert slots.place is not None
    rows = noise(NUM_TOKENS * CHOSEN, HIDDEN, dtype=dtype)
    wanted = rows.double()[slots.place.long()].sum(1)
    torch.testing.assert_close(expert_rows.sum_of_slots(rows, slots.place).double(), wanted, **TOLERANCE[dtype])
