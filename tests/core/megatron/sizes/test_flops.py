from __future__ import annotations

import pytest

import modelcfg
from core.megatron.sizes.flops import peak_flops, update_flops


def test_a_long_row_needs_six_operations_per_matrix_parameter_and_token() -> None:
    """0.6 billion parameters: 0.44 in layers, 0.16 in the output layer, which reads the embedding."""
    shape = modelcfg.load("qwen3-0.6b")
    layers = 28 * (1024 * (2 * 2048 + 2 * 1024) + 3 * 1024 * 3072)
    assert update_flops(shape, 100, 0, 0) == 6 * layers * 100
    assert update_flops(shape, 0, 10, 0) == 6 * 1024 * 151936 * 10
    assert update_flops(shape, 0, 0, 50) == 12 * 28 * 2048 * 50


def test_of_experts_those_count_that_a_token_goes_to() -> None:
    shape = modelcfg.load("qwen3-30b-a3b")
    found = update_flops(shape, 1, 0, 0)
    assert found is not None
    assert found / 6 == 48 * 2048 * (2 * 4096 + 2 * 512 + 3 * 8 * 768 + 128)


@pytest.mark.parametrize("part", ["latent", "delta", "window"])
def test_other_attention_is_not_counted(part: str) -> None:
    shape = next(shape for shape in map(modelcfg.load, modelcfg.names()) if getattr(shape, part) is not None)
    assert update_flops(shape, 1, 1, 1) is None


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("Quadro P620", None),
    ],
)
def test_cards_are_known_by_name(name: str, peak: float | None) -> None:
    assert peak_flops(name) == peak
