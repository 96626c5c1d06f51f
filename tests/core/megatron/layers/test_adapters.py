"""One layer with adapters against the formula, written out in plain torch."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from core.config.sections.lora import LoraConfig
from core.megatron import shim
from core.megatron.layers.adapters import Adapter, LayerAdapters
from core.megatron.layers.merging import merged_layer
from core.megatron.state import weight_gradients
from modelcfg import load
from modelcfg.adapters import Adapted, adapted_layers, adapter_parameters, expert_targets, possible_targets
from modelcfg.stages import Stages

CONFIG = SimpleNamespace(params_dtype=torch.float32, tensor_model_parallel_size=1, sequence_parallel=False)
LORA = LoraConfig(rank=5, alpha=2.0)
PLAIN = Adapted("linear_proj", ("self_attn.o_proj",), 24, (32,), 1, (0,), "columns")
QKV = Adapted("linear_qkv", tuple(f"self_attn.{x}_proj" for x in "qkv"), 24, (16, 8, 8), 3, (0, 1, 2), "qkv")
WITHOUT_KEY = Adapted("linear_qkv", QKV.hf, 24, QKV.widths, 3, (0, 2), "qkv")
UP = Adapted("linear_fc1", ("mlp.gate_proj", "mlp.up_proj"), 24, (40, 40), 1, (1,), "gate_up")
LAYERS = {"plain": PLAIN, "qkv": QKV, "q and v": WITHOUT_KEY, "up": UP}


def made(adapted: Adapted) -> LayerAdapters:
    """With random A and B, and room for their gradients."""
    shim.install()
    weight_gradients.install()
    torch.manual_seed(0)
    layer = LayerAdapters(CONFIG, adapted, LORA)
    for parameter in layer.parameters():
        parameter.data.normal_()
        parameter.main_grad = torch.zeros_like(parameter)  # type: ignore[attr-defined]
    return layer


def by_hand(adapted: Adapted, weights: dict[str, tuple[Tensor, Tensor]], hidden: Tensor) -> Tensor:
    """HuggingFace's projections one by one, put where Megatron has their rows: group by group."""
    parts = []
    for place, width in enumerate(adapted.widths):
        added = hidden.new_zeros(*hidden.shape[:-1], adapted.groups * width)
        if place in adapted.chosen:
            a, b = weights[adapted.name(place)]
            added = LORA.scale * (hidden @ a.T @ b.T)
        parts.append(added)
    rows = [
        part[..., group * width : (group + 1) * width]
        for group in range(adapted.groups)
        for part, width in zip(parts, adapted.widths, strict=True)
    ]
    return torch.cat(rows, -1)


@pytest.mark.parametrize("adapted", LAYERS.values(), ids=LAYERS)
def test_forward_and_gradients_are_those_of_the_formula(adapted: Adapted) -> None:
    layer = made(adapted)
    hidden = torch.randn(7, 1, adapted.inputs, requires_grad=True)
    output, incoming = torch.randn(7, 1, sum(adapted.widths) * adapted.groups), None
    found, rest = layer.after(None, (hidden,), (output, "bias"))
    incoming = torch.randn_like(found)
    found.backward(incoming)

    same = hidden.detach().clone().requires_grad_()
    weights = {
        name: tuple(getattr(one, side).weight.detach().clone().requires_grad_() for side in ("lora_A", "lora_B"))
        for name, one in layer.items()
    }
    wanted = output + by_hand(adapted, weights, same)  # type: ignore[arg-type]
    wanted.backward(incoming)
    assert rest == "bias"
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=2e-6)
    torch.testing.assert_close(hidden.grad, same.grad, rtol=1e-5, atol=1e-5)
    for name, one in layer.items():
        for side, weight in zip(("lora_A", "lora_B"), weights[name], strict=True):
            gradient: Any = getattr(one, side).weight.main_grad
            torch.testing.assert_close(gradient, weight.grad, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("adapted", LAYERS.values(), ids=LAYERS)
def test_the_merged_layer_adds_the_same(adapted: Adapted) -> None:
    layer = made(adapted)
    weight = torch.randn(sum(adapted.widths) * adapted.groups, adapted.inputs)
    before, hidden = weight.clone(), torch.randn(7, 1, adapted.inputs)
    sides = [(one.lora_A.weight, one.lora_B.weight) for one in layer.values()]
    merged = merged_layer(weight, adapted, sides, LORA.scale)
    with torch.no_grad():
        wanted = layer.after(None, (hidden,), hidden @ weight.T)
    torch.testing.assert_close(hidden @ merged.T, wanted, rtol=1e-5, atol=2e-5)
    assert torch.equal(weight, before)


@pytest.mark.parametrize("adapted", LAYERS.values(), ids=LAYERS)
def test_a_token_keeps_the_rank_of_each_adapter(adapted: Adapted) -> None:
    """Of what autograd saves, weights and the layer's own input aside: as the planner counts it."""
    layer, hidden, kept = made(adapted), torch.randn(7, 1, adapted.inputs), dict[int, int]()
    known = {tensor.data_ptr() for tensor in (hidden, *layer.parameters())}

    def seen(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in known:
            kept[tensor.data_ptr()] = tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(seen, lambda tensor: tensor):
        output = layer.after(None, (hidden,), torch.zeros(7, 1, sum(adapted.widths) * adapted.groups))
    assert output.requires_grad
    assert sum(kept.values()) == 7 * LORA.rank * len(adapted.chosen)


def test_an_adapter_begins_as_pefts_and_alike_everywhere() -> None:
    shim.install()
    adapted = replace(PLAIN, inputs=400, widths=(30,))
    first, again, other = (Adapter(CONFIG, adapted, 0, LORA) for _ in range(3))
    first.begin(7, "3 self_attn.q_proj")
    again.begin(7, "3 self_attn.q_proj")
    other.begin(7, "4 self_attn.q_proj")
    assert torch.equal(first.lora_A.weight, again.lora_A.weight)
    assert not torch.equal(first.lora_A.weight, other.lora_A.weight)
    assert not first.lora_B.weight.any()
    bound = 400**-0.5  # of kaiming_uniform_ with a = sqrt(5)
    assert 0.95 * bound < float(first.lora_A.weight.detach().abs().max()) <= bound


def test_switched_off_it_adds_nothing() -> None:
    layer = made(PLAIN)
    layer.enabled = False
    output = torch.randn(3, 1, 32)
    assert layer.after(None, (torch.randn(3, 1, 24),), output) is output


@pytest.mark.parametrize(
    ("name", "targets"),
    [
        ("llama-3.1-8b", ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]),
        ("qwen3-30b-a3b", ["q_proj", "k_proj", "v_proj", "o_proj"]),
    ],
)
def test_targets_of_a_model(name: str, targets: list[str]) -> None:
    shape = load(name)
    assert possible_targets(shape) == targets
    assert expert_targets(shape) == ({"gate_proj", "up_proj", "down_proj"} if shape.num_experts else set())


def test_adapters_of_8b_are_counted_as_peft_counts_them() -> None:
    """PEFT's print_trainable_parameters of Llama 3.1 8B, rank 16, all seven projections: 41,943,040."""
    assert sum(adapter_parameters(load("llama-3.1-8b"), 16, ["all-linear"]).values()) == 41_943_040
    stages = [
        adapter_parameters(load("llama-3.1-8b"), 16, ["all-linear"], stages=Stages(4), stage=stage)
        for stage in range(4)
    ]
    assert sum(sum(stage.values()) for stage in stages) == 41_943_040
    assert adapted_layers(load("llama-3.1-8b"), 0, ["q_proj"])[0].chosen == (0,)
