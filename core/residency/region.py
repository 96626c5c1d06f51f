"""Flat device buffers that leave and come back together, under the same tensors.

Not the tensors but their storages are emptied and refilled, so every view of a flat buffer (a parameter, its gradient,
a bucket, Adam's moments) stays what it was: same object, same offset, valid again after `bring`.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from core.residency.host_memory import host_buffer


class Region:
    """One part of an owner.

    `changed` says that the device has what the host copy has not; whoever writes to the buffers sets it.
    """

    def __init__(self, name: str, tensors: Iterable[Tensor], *, keep: bool = True) -> None:
        """Args:
        tensors: their storages, each once, are the region.
        keep: copy to the host when leaving; False: the contents are dropped.
        """
        storages = {tensor.untyped_storage()._cdata: tensor.untyped_storage() for tensor in tensors}
        self.name, self.keep = name, keep
        self._storages = list(storages.values())
        self._sizes = [storage.nbytes() for storage in self._storages]
        self._device = self._storages[0].device if self._storages else torch.device("cpu")
        self._host: list[Tensor] = []
        self.resident, self.changed = True, True

    @property
    def num_bytes(self) -> int:
        """Size on the device when resident."""
        return sum(self._sizes)

    @property
    def identities(self) -> frozenset[int]:
        """Its storages, to tell which tensors belong to it."""
        return frozenset(storage._cdata for storage in self._storages)

    def reserve(self) -> None:
        """Make the host copy's memory now rather than at the first `copy_out`."""
        if self.keep and not self._host:
            self._host = [host_buffer(size, pinned=self._device.type == "cuda") for size in self._sizes]

    def copy_out(self) -> int:
        """Start copying to the host, on the current stream; bytes that move (0: the host has them already)."""
        if not (self.resident and self.keep and self.changed):
            return 0
        self.reserve()
        for storage, host in zip(self._storages, self._host, strict=True):
            host.copy_(_as_bytes(storage), non_blocking=True)
        self.changed = False
        return self.num_bytes

    def free(self) -> None:
        """Give the device memory back. The copies must have arrived."""
        for storage in self._storages:
            storage.resize_(0)
        self.resident = False

    def allocate(self) -> None:
        """Device memory again, contents undefined."""
        for storage, size in zip(self._storages, self._sizes, strict=True):
            storage.resize_(size)
        self.resident = True

    def copy_in(self) -> int:
        """Start copying from the host, on the current stream; bytes that move."""
        if not self.keep:
            return 0
        if self.changed:
            raise RuntimeError(f"region {self.name} has no copy on the host: it was freed before it was copied out")
        for storage, host in zip(self._storages, self._host, strict=True):
            _as_bytes(storage).copy_(host, non_blocking=True)
        return self.num_bytes


def _as_bytes(storage: torch.UntypedStorage) -> Tensor:
    empty = torch.empty(0, dtype=torch.uint8, device=storage.device)
    return empty.set_(storage, 0, (storage.nbytes(),))  # type: ignore[call-overload, no-any-return]
