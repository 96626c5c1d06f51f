"""Flat device buffers that leave and come back together, under the same tensors.

Not the tensors but their storages are emptied and refilled, so every view of a flat buffer (a parameter, its gradient,
a bucket, Adam's moments) stays what it was: same object, same offset, valid again after `bring`.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from core.residency.host_memory import host_buffer

PIECE_BYTES = 32 * 2**20


class Region:
    """One part of an owner.

    `changed` says that the device has what the host copy has not; whoever writes to the buffers sets it.
    """

    def __init__(self, name: str, tensors: Iterable[Tensor], *, keep: bool = True) -> None:
        """Take the storages of these tensors as one part.

        Args:
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

    def bring(self, pieces: bool = False) -> int:
        """Device memory again, and start copying from the host into it, on the current stream; bytes that move.

        Buffer by buffer, so that the first is on its way while the device finds room for the second. What is not kept
        comes back undefined.

        Args:
            pieces: in small copies, between which those of other streams find their turn: the device copies one after
                the other, and a micro-batch's few bytes would wait for GiB.
        """
        if self.keep and self.changed:
            raise RuntimeError(f"region {self.name} has no copy on the host: it was freed before it was copied out")
        for number, (storage, size) in enumerate(zip(self._storages, self._sizes, strict=True)):
            storage.resize_(size)
            if self.keep:
                _copy(_as_bytes(storage), self._host[number], PIECE_BYTES if pieces else size)
        self.resident = True
        return self.num_bytes if self.keep else 0


def _copy(target: Tensor, source: Tensor, step: int) -> None:
    for first in range(0, source.numel(), max(1, step)):
        target[first : first + step].copy_(source[first : first + step], non_blocking=True)


def _as_bytes(storage: torch.UntypedStorage) -> Tensor:
    empty = torch.empty(0, dtype=torch.uint8, device=storage.device)
    return empty.set_(storage, 0, (storage.nbytes(),))  # type: ignore[call-overload, no-any-return]
