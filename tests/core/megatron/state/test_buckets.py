"""Buckets of a weight sync."""

from __future__ import annotations

import pytest
import torch

from core.megatron.state.buckets import in_buckets
from modelcfg import from_hf
from modelcfg.table import layer_weights
from tests.support.tiny_models import LATENT, tiny_config


def names(buckets: object) -> list[list[str]]:
    """What is in each bucket."""
    return [[name for name, _ in bucket] for bucket in buckets]  # type: ignore[attr-defined]


def test_a_bucket_takes_what_fits_and_a_large_tensor_has_one_of_its_own() -> None:
    sizes = {"a": 2, "b": 1, "c": 2, "d": 9, "e": 3}
    tensors = [(name, torch.zeros(size, dtype=torch.int8)) for name, size in sizes.items()]
    assert names(in_buckets(tensors, 3)) == [["a", "b"], ["c"], ["d"], ["e"]]
    assert names(in_buckets([], 3)) == []


@pytest.mark.parametrize("kind", LATENT)
@pytest.mark.parametrize("max_bytes", [1, 3, 5, 8])
def test_what_engines_take_only_at_once_is_in_one_bucket(kind: str, max_bytes: int) -> None:
    """Wherever buckets end."""
    shape = from_hf(tiny_config(kind).to_dict())
    layer = [f"model.layers.1.{name}" for weight in layer_weights(shape, 1) for name in weight.hf]
    found = names(in_buckets([(name, torch.zeros(1, dtype=torch.int8)) for name in layer], max_bytes))
    assert [name for bucket in found for name in bucket] == layer
    pairs = [{name for name in bucket if "_a_proj" in name} for bucket in found]
    assert [len(pair) for pair in pairs if pair] == [2]
    if max_bytes == 1:
        assert sorted(map(len, found))[-2:] == [1, 4], "no more than that goes together"
