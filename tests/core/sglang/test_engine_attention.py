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

HEADS, GROUPS, DIM, SLOTS, LONGEST = 9, 3, 64, 32768, 512
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


@pytest.fixture
def restored_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("restored_threads")
@pytest.mark.parametrize("threads", [1, 2, 7])
def test_a_request_is_rounded_as_if_alone(shim: ModuleType, threads: int) -> None:
    torch.set_num_threads(threads)
    query, output, keys, values, *per_request = cached(LENGTHS * 40)
    table, rows, lengths = per_request
    how = {"scaling": 0.3, "sliding_window_size": None, "causal": False}
    together = shim.decode(refuse, None, query, output, keys, values, table, rows, lengths, None, **how)
    for some in (slice(3, 4), slice(10, 47)):
        where = (keys, values, table, rows[some], lengths[some], None)
        found = shim.decode(refuse, None, query[some], torch.empty_like(query[some]), *where, **how)
        assert torch.equal(found, together[some])


@pytest.mark.parametrize(("encoder_lens", "window"), [(torch.tensor([1, 1]), None), (None, 8)])
def test_the_rest_is_left_to_sglang(shim: ModuleType, encoder_lens: Tensor | None, window: int | None) -> None:
    where = (*cached((5, 6)), encoder_lens)
    how = {"scaling": 0.3, "sliding_window_size": window, "causal": False}
    asked: list[Any] = []

    def own(*arguments: Any, **options: Any) -> Tensor:
        asked.append((arguments, options))
        return where[1]

    assert shim.decode(own, None, *where, **how) is where[1]
    assert asked == [((None, *where), how)]
