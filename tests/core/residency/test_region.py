"""Flat buffers leave and come back under the same tensors."""

from __future__ import annotations

import pytest
import torch

from core.megatron.state import flat
from core.megatron.state.flat import flat_like, move_into_flat
from core.residency import region as region_module
from core.residency.region import Region


def make_tensors() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(size, generator=generator) for size in ((3, 5), (1,), (64, 3), (0,))]


def test_moving_into_a_flat_buffer_keeps_objects_and_values() -> None:
    tensors = [*make_tensors(), torch.arange(5).bfloat16()]
    before = [tensor.clone() for tensor in tensors]
    move_into_flat(tensors)
    assert all(torch.equal(a, b) for a, b in zip(tensors, before, strict=True))
    assert len({tensor.untyped_storage()._cdata for tensor in tensors}) == 2  # one per dtype
    assert all(tensor.is_contiguous() and tensor.data_ptr() % 64 == 0 for tensor in tensors if tensor.numel())
    assert flat_like([]) == []


def test_large_tensors_get_buffers_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flat, "BUFFER_BYTES", 1024)
    tensors = [torch.full((size,), float(size)) for size in (10, 100, 100, 2000, 5)]
    move_into_flat(tensors)
    assert [int(t[0]) for t in tensors] == [10, 100, 100, 2000, 5]
    storages = [tensor.untyped_storage()._cdata for tensor in tensors]
    assert [storages.index(s) for s in storages] == [0, 0, 2, 3, 4]


def test_contents_return_and_views_stay_views(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(region_module, "PIECE_BYTES", 100)
    tensors = make_tensors()
    move_into_flat(tensors)
    view, before = tensors[2][5:7], [tensor.clone() for tensor in tensors]
    region = Region("x", tensors)
    size = region.num_bytes
    for _ in range(2):
        assert region.copy_out() == size
        region.free()
        assert (region.resident, tensors[0].untyped_storage().nbytes()) == (False, 0)
        assert region.bring(pieces=True) == size
        assert all(torch.equal(a, b) for a, b in zip(tensors, before, strict=True))
        tensors[2].add_(1)
        before[2].add_(1)
        assert torch.equal(view, tensors[2][5:7])
        region.changed = True


def test_unchanged_contents_are_not_copied_again() -> None:
    region = Region("x", make_tensors())
    assert region.copy_out() > 0
    assert region.copy_out() == 0
    region.free()
    region.bring()
    assert region.copy_out() == 0


def test_dropped_contents_are_not_copied_and_lost_ones_are_refused() -> None:
    dropped = Region("gradients", make_tensors(), keep=False)
    assert dropped.copy_out() == 0
    dropped.free()
    assert dropped.bring() == 0
    lost = Region("masters", make_tensors())
    lost.free()
    with pytest.raises(RuntimeError, match="masters has no copy on the host: it was freed before"):
        lost.bring()


def test_a_region_may_be_empty() -> None:
    region = Region("masters", [])
    assert (region.num_bytes, region.copy_out()) == (0, 0)
    region.free()
    region.bring()
    assert region.resident
