from __future__ import annotations

import gc
from types import SimpleNamespace

import pytest
import torch

from core.residency.host_memory import HUGE_PAGE_BYTES, host_buffer


class Registry:
    """CUDA's list of page-locked host memory."""

    def __init__(self, answer: int = 0) -> None:
        self.answer, self.registered = answer, dict[int, int]()

    def cudaHostRegister(self, address: int, size: int, _flags: int) -> int:
        if self.answer == 0:
            self.registered[address] = size
        return self.answer

    def cudaHostUnregister(self, address: int) -> int:
        del self.registered[address]
        return 0


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Registry:
    registry = Registry()
    monkeypatch.setattr(torch.cuda, "cudart", lambda: registry)
    return registry


def test_a_buffer_is_registered_as_long_as_somebody_uses_it(registry: Registry) -> None:
    buffer = host_buffer(1000, pinned=True)
    address = buffer.data_ptr()
    assert registry.registered == {address: HUGE_PAGE_BYTES}
    view = buffer[10:20]
    del buffer
    gc.collect()
    view.fill_(7)
    assert registry.registered == {address: HUGE_PAGE_BYTES}
    del view
    gc.collect()
    assert registry.registered == {}


def test_memory_that_cuda_will_not_lock_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry(answer=1)
    monkeypatch.setattr(torch.cuda, "cudart", lambda: registry)
    made = SimpleNamespace(pin_memory=False)
    real = torch.empty

    def empty(*size: int, pin_memory: bool = False, **options: object) -> torch.Tensor:
        made.pin_memory = pin_memory
        return real(*size, **options)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(torch, "empty", empty)
    assert host_buffer(1000, pinned=True).shape == (1000,)
    assert made.pin_memory
    assert registry.registered == {}


def test_without_a_gpu_it_is_ordinary_memory() -> None:
    assert host_buffer(5, pinned=False).shape == (5,)
