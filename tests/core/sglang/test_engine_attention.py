"""Decoding many requests at a time on a CPU, against attention request by request."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from core.sglang.launch import CPU_SHIM

HEADS, GROUPS, DIM, SLOTS, LONGEST = 6, 2, 8, 4096, 512
LENGTHS = (1, 31, 32, 33, 64, 65, 300)


@pytest.fixture
def shim(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(CPU_SHIM))
    import ebbtide_cpu_attention  # type: ignore[import-not-found]

    yield ebbtide_cpu_attention
    sys.modules.pop("ebbtide_cpu_attention", None)


def cached(lengths: tuple[int, ...]) -> list[Tensor]:
    """Query, output, and a cache in which the tokens of each request lie anywhere; table rows out of order."""
    torch.manual_seed(len(lengths))
    number = len(lengths)
    table = torch.zeros(number + 3, LONGEST, dtype=torch.long)
    rows, free = torch.randperm(number + 3)[:number], torch.randperm(SLOTS)
    for row, length in zip(rows, lengths, strict=True):
        table[row, :length], free = free[:length], free[length:]
    keys, values = torch.randn(2, SLOTS, GROUPS, DIM)
    query = torch.randn(number, HEADS, DIM)
    return [query, torch.empty_like(query), keys, values, table, rows, torch.tensor(lengths)]


def one_by_one(query: Tensor, keys: Tensor, values: Tensor, table: Tensor, rows: Tensor, lengths: Tensor) -> Tensor:
    made = []
    for one, row, length in zip(query, rows, lengths, strict=True):
        slots = table[row, :length]
        own, of_value = keys[slots].transpose(0, 1), values[slots].transpose(0, 1)
        made.append(scaled_dot_product_attention(one[:, None], own, of_value, scale=0.3, enable_gqa=True)[:, 0])
    return torch.stack(made)


def refuse(*_args: Any, **_options: Any) -> Tensor:
    raise AssertionError("SGLang's own loop was called")


@pytest.mark.parametrize("lengths", [LENGTHS, (40,), (17, 17, 18)])
def test_as_request_by_request(shim: ModuleType, lengths: tuple[int, ...]) -> None:
    query, output, *cache = cached(lengths)
    how = {"scaling": 0.3, "sliding_window_size": None, "causal": False}
    found = shim.decode(refuse, None, query, output, *cache, None, **how)
    assert found is output
    torch.testing.assert_close(found, one_by_one(query, *cache), rtol=1e-5, atol=1e-6)


def test_prompts_that_are_cached_but_for_a_token(shim: ModuleType) -> None:
    query, output, *cache = cached(LENGTHS)
    how = {"scaling": 0.3, "sliding_window_size": None, "causal": True}
    ones = torch.ones(len(LENGTHS), dtype=torch.long)
    found = shim.extend(refuse, None, query, output, *cache, cache[-1] - 1, ones, None, **how)
    torch.testing.assert_close(found, one_by_one(query, *cache), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("extend_lens", "encoder_lens", "changed"),
    [
        ([1, 2], None, {}),
        ([1, 1], torch.tensor([1, 1]), {}),
        ([1, 1], None, {"sliding_window_size": 8}),
        ([1, 1], None, {"causal": False}),
    ],
)
def test_the_rest_is_left_to_sglang(
    shim: ModuleType, extend_lens: list[int], encoder_lens: Tensor | None, changed: dict[str, Any]
) -> None:
    query, output, *cache = cached((5, 6))
    where = (query, output, *cache, cache[-1] - 1, torch.tensor(extend_lens), encoder_lens)
    how = {"scaling": 0.3, "sliding_window_size": None, "causal": True} | changed
    asked: list[Any] = []

    def own(*arguments: Any, **options: Any) -> Tensor:
        asked.append((arguments, options))
        return output

    assert shim.extend(own, None, *where, **how) is output
    assert asked == [((None, *where), how)]
