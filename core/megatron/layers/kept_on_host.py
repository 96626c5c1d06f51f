"""Inputs of recomputed layers that wait for the backward pass in host memory.

    compute   │ layer 1 │ layer 2 │ layer 3 │ …  loss  … │ layer 3 again, back │ layer 2 again, back │
    out          │ of 1 │  │ of 2 │
    in                                                    │ of 2 │                │ of 1 │

A layer's input leaves while the layer computes, and its memory is free when the next one begins; on the way back it
comes while the layer behind it goes backward. The last one's input stays. The bits are the same. On a CPU it is a copy.
Left out: what layers keep that are not recomputed.
Legend: T tokens of a row on this rank, H hidden.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from core.megatron.sizes.activations import HOST_CHUNK
from core.residency.host_memory import host_buffer


class _Input(NamedTuple):
    """What stands in a saved tensor's place: a layer's input, by number."""

    waiting: _Waiting
    number: int


class HostChunks:
    """Host memory in chunks of one size, the most that rows have needed at a time, kept for the whole run."""

    def __init__(self, device: torch.device) -> None:
        self._pinned = device.type == "cuda"
        self._free: list[Tensor] = []
        self.num_bytes = 0

    def take(self, num_bytes: int) -> list[Tensor]:
        """Chunks with room for these bytes."""
        wanted = -(-num_bytes // HOST_CHUNK)
        while len(self._free) < wanted:
            self._free.append(host_buffer(HOST_CHUNK, self._pinned))
            self.num_bytes += HOST_CHUNK
        return [self._free.pop() for _ in range(wanted)]

    def give_back(self, chunks: Sequence[Tensor]) -> None:
        """Have chunks for others to take, once what is on its way from them has arrived."""
        self._free += chunks


class _Lanes:
    """A stream for each direction; on a CPU none, where copies are done when they are called."""

    def __init__(self, device: torch.device) -> None:
        self._device, self.outward, self.inward = device, None, None
        if device.type == "cuda":
            self.outward, self.inward = (torch.cuda.Stream(device) for _ in range(2))  # type: ignore[no-untyped-call]

    def start(
        self, lane: torch.cuda.Stream | None, after: Sequence[Any], pairs: Sequence[tuple[Tensor, Tensor]]
    ) -> Any:
        """Start copies (target, source) behind what was computed and these events; an event for when they are done."""
        if lane is None:
            for target, source in pairs:
                target.copy_(source)
            return None
        lane.wait_stream(torch.cuda.current_stream(self._device))
        for event in after:
            lane.wait_event(event)
        with torch.cuda.stream(lane):
            for target, source in pairs:
                target.copy_(source, non_blocking=True)
            done = torch.cuda.Event()  # type: ignore[no-untyped-call]
            done.record(lane)
        return done

    def wait(self, event: Any) -> None:
        """What the current stream does from here on comes behind the event."""
        if event is not None:
            torch.cuda.current_stream(self._device).wait_event(event)


class _Waiting:
    """The inputs of one row's layers, from its forward pass to its backward pass."""

    def __init__(self, num_layers: int, lanes: _Lanes, chunks: HostChunks) -> None:
        self._num_layers, self._lanes, self._chunks = num_layers, lanes, chunks
        self._left: list[tuple[list[Tensor], Any]] = []  # on the host: chunks, and when it is there
        self._leaving: tuple[Tensor, Any] | None = None
        self._arriving: dict[int, tuple[Tensor, Any]] = {}
        self._shape, self._dtype, self._device = torch.Size(), torch.float32, torch.device("cpu")

    def begin(self, hidden: Tensor) -> None:
        """Say that the next layer begins with this input; all but the last start to leave."""
        self._let_go()
        number = len(self._left)
        if number >= self._num_layers - 1:
            return
        self._shape, self._dtype, self._device = hidden.shape, hidden.dtype, hidden.device
        source = hidden.detach().contiguous()
        chunks = self._chunks.take(source.nbytes)
        arrived = self._lanes.start(self._lanes.outward, (), _pieces(chunks, source, out=True))
        self._left.append((chunks, arrived))
        self._leaving = source, arrived

    def _let_go(self) -> None:
        """The last input that left needs no memory any more: what takes it over comes behind the copy."""
        if self._leaving is not None:
            self._lanes.wait(self._leaving[1])
            self._leaving = None

    def pack(self, saved: Tensor) -> Tensor | _Input:
        """The number of the input, if it is the one that leaves; others as they are."""
        if self._leaving is None or not _same(saved, self._leaving[0]):
            return saved
        return _Input(self, len(self._left) - 1)

    def end(self) -> None:
        """Say that the last layer has been computed."""
        self._let_go()

    def bring(self, number: int) -> Tensor:
        """[T, 1, H] a layer's input on the device; the one ahead of it is on its way."""
        if number not in self._arriving:
            self._start_bringing(number)
        if number:
            self._start_bringing(number - 1)
        found, arrived = self._arriving.pop(number)
        self._lanes.wait(arrived)
        return found

    def _start_bringing(self, number: int) -> None:
        (chunks, there), target = self._left[number], torch.empty(self._shape, dtype=self._dtype, device=self._device)
        after = [] if there is None else [there]
        arrived = self._lanes.start(self._lanes.inward, after, _pieces(chunks, target, out=False))
        self._arriving[number] = target, arrived
        self._chunks.give_back(chunks)


def _pieces(chunks: Sequence[Tensor], tensor: Tensor, *, out: bool) -> list[tuple[Tensor, Tensor]]:
    """Target and source of each piece of a contiguous tensor on its way to the chunks, or from them."""
    on_device = torch.split(tensor.view(-1).view(torch.uint8), HOST_CHUNK)
    on_host = [chunk[: len(piece)] for chunk, piece in zip(chunks, on_device, strict=True)]
    return list(zip(on_host, on_device, strict=True) if out else zip(on_device, on_host, strict=True))


def _same(one: Tensor, other: Tensor) -> bool:
    return one.data_ptr() == other.data_ptr() and one.shape == other.shape and one.dtype == other.dtype


def _unpack(packed: Tensor | _Input) -> Tensor:
    return packed if isinstance(packed, Tensor) else packed.waiting.bring(packed.number)


class HostInputs:
    """Has the inputs of a decoder's first layers, which are recomputed, wait on the host. Collective: none."""

    def __init__(self, decoder: Any, num_layers: int) -> None:
        """Take over the decoder's passes that go backward.

        Args:
            num_layers: that are recomputed, from the first.
        """
        device = next(decoder.parameters()).device
        self._num_layers, self._lanes, self.chunks = num_layers, _Lanes(device), HostChunks(device)
        self._waiting: _Waiting | None = None
        self._forward = decoder.forward
        decoder.forward = self._pass
        self._decoder = decoder
        for layer in list(decoder.layers)[:num_layers]:
            layer.register_forward_pre_hook(self._begin, with_kwargs=True)

    def _pass(self, *arguments: Any, **options: Any) -> Any:
        if not (self._decoder.training and torch.is_grad_enabled()):
            return self._forward(*arguments, **options)
        with self._waits() as waiting, torch.autograd.graph.saved_tensors_hooks(waiting.pack, _unpack):
            return self._forward(*arguments, **options)

    @contextmanager
    def _waits(self) -> Iterator[_Waiting]:
        if self._lanes.outward is not None and self._lanes.inward is not None:
            self._lanes.outward.wait_stream(self._lanes.inward)  # which may still read chunks that have been given back
        self._waiting = _Waiting(self._num_layers, self._lanes, self.chunks)
        try:
            yield self._waiting
            self._waiting.end()
        finally:
            self._waiting = None

    def _begin(self, _layer: Any, _arguments: Any, options: dict[str, Any]) -> None:
        """Say that a layer begins, unless it is one that is computed again."""
        if self._waiting is not None:
            self._waiting.begin(options["hidden_states"])
