"""Arrays of host memory that pass through a device: in, work, out, each on its own while the others go on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from common.units import FP32_BYTES
from core.megatron.sizes.streaming import SLOTS
from core.residency.host_memory import host_buffer

Arrays = Sequence[Tensor]


def host_array(numel: int, device: torch.device) -> Tensor:
    """[numel] float32 zeros on the host, page-locked if they are to pass through a GPU."""
    return host_buffer(numel * FP32_BYTES, pinned=device.type == "cuda").view(torch.float32)


class Passing:
    """One passage of all pieces. Iterate over it once, and work with what it gives on the current stream.

    The first pieces are on their way when it has been made. On a CPU the pieces are worked with where they are.
    """

    def __init__(self, device: torch.device, pieces: Sequence[Arrays]) -> None:
        self._pieces = pieces
        self._lanes = _Lanes(device, pieces) if device.type == "cuda" and pieces else None

    def __iter__(self) -> Iterator[Arrays]:
        """Each piece on the device; what was written to it is on the host when the iteration has ended."""
        if self._lanes is None:
            yield from self._pieces
            return
        for number in range(len(self._pieces)):
            yield self._lanes.arrived(number)
            self._lanes.leave(number)
            if number + SLOTS < len(self._pieces):
                self._lanes.enter(number + SLOTS)
        self._lanes.outward.synchronize()

    def stop(self) -> None:
        """Wait for what is on its way, so that the device can have the memory back."""
        if self._lanes is not None:
            self._lanes.inward.synchronize()


class _Lanes:
    """Slots on a GPU, one stream for each direction, and who waits for whom."""

    def __init__(self, device: torch.device, pieces: Sequence[Arrays]) -> None:
        self._device, self._pieces = device, pieces
        largest = max(len(piece[0]) for piece in pieces)
        count = min(SLOTS, len(pieces))
        self._slots = [[torch.empty(largest, device=device) for _ in pieces[0]] for _ in range(count)]
        self.inward, self.outward = torch.cuda.Stream(device), torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._free = [self._event(torch.cuda.current_stream(device)) for _ in range(count)]
        self._filled = list(self._free)
        for number in range(count):
            self.enter(number)

    def enter(self, number: int) -> None:
        """Start bringing a piece, as soon as its slot is empty."""
        slot = number % SLOTS
        self.inward.wait_event(self._free[slot])
        with torch.cuda.stream(self.inward):
            for target, source in zip(self._on_device(number), self._pieces[number], strict=True):
                target.copy_(source, non_blocking=True)
        self._filled[slot] = self._event(self.inward)

    def arrived(self, number: int) -> list[Tensor]:
        """The piece; what the current stream does from here on finds it complete."""
        torch.cuda.current_stream(self._device).wait_event(self._filled[number % SLOTS])
        return self._on_device(number)

    def leave(self, number: int) -> None:
        """Start copying a piece to the host, after what the current stream was told to do with it."""
        slot = number % SLOTS
        self.outward.wait_event(self._event(torch.cuda.current_stream(self._device)))
        with torch.cuda.stream(self.outward):
            for source, target in zip(self._on_device(number), self._pieces[number], strict=True):
                target.copy_(source, non_blocking=True)
        self._free[slot] = self._event(self.outward)

    def _on_device(self, number: int) -> list[Tensor]:
        piece = self._pieces[number]
        return [array[: len(piece[0])] for array in self._slots[number % SLOTS]]

    @staticmethod
    def _event(stream: torch.cuda.Stream) -> torch.cuda.Event:
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record(stream)
        return event
