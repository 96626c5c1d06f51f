"""The trainer rank as an owner of GPU memory: its flat buffers are parked in host memory between updates.

| part | what | leaving | coming back |
|---|---|---|---|
| masters | fp32 copies of bf16 parameters | copied out, if an update changed them | copied in |
| moments | Adam's two | as masters | copied in |
| parameters | what computes | dropped where masters exist, else as masters | rounded from the masters, else copied in |
| gradients | fp32 sums | dropped | undefined; every update clears them first |
| reference | the KL reference | copied out once, and each time it has become the policy | copied in |
| base | what is not trained: frozen, or beside adapters | copied out once | copied in |
| critic | a second model: masters, moments, parameters | copied out, if an update changed them | copied in |

A critic's gradients belong to the gradients. The policy's moments are needed last, so computing may begin while they
are still on their way.
Where Adam's state streams (`streamed.py`), masters and moments are never here, and parameters are copied.
Under the distributed optimiser a rank's masters are a part of the parameters only; there parameters are copied.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from core.megatron.state.flat import move_into_flat
from core.megatron.state.optimizer import Optimizer
from core.residency.region import Region
from core.residency.table import TRAINER, TRAINER_PARTS

UNCHANGING = ("reference", "base")


class TrainerMemory:
    """One rank's parts. Everything is on the device at first. Collective: none."""

    name = TRAINER

    def __init__(
        self,
        optimizer: Optimizer,
        parameters: Sequence[Tensor],
        reference: Sequence[Tensor],
        base: Sequence[Tensor] = (),
        critic: tuple[Optimizer, Sequence[Tensor]] | None = None,
    ) -> None:
        """Take the buffers of a rank.

        Args:
            parameters: what is trained.
            base: what is not; already in flat buffers.
            critic: optimiser and parameters of a second model.
        """
        self._adams = optimizer.adams
        self._streamed_bytes = sum(stream.host_bytes for stream in optimizer.streams)
        self._device = parameters[0].device
        self._stream = _stream(self._device)
        self.regions = _regions(optimizer, parameters, reference, base, critic)
        self._arrived: torch.cuda.Event | None = None
        optimizer.before_step = self.settle

    def held(self) -> Mapping[str, int]:
        """Part -> bytes on the device."""
        return {name: region.num_bytes for name, region in self.regions.items() if region.resident and region.num_bytes}

    @property
    def host_bytes(self) -> int:
        """Pinned memory when everything is parked."""
        return self._streamed_bytes + sum(region.num_bytes for region in self.regions.values() if region.keep)

    def reserve(self, staying: Collection[str] = ()) -> None:
        """Take the host memory now, so that no phase waits for it; none for parts that never leave."""
        for name, region in self.regions.items():
            if name not in staying:
                region.reserve()

    def touched(self) -> None:
        """Say that an update or a checkpoint has changed, or is about to change, the resident parts."""
        for name, region in self.regions.items():
            if name not in UNCHANGING:
                region.changed = True

    def reference_changed(self) -> None:
        """Say that the reference is another one now."""
        self.regions["reference"].changed = True

    def shrink_to(self, parts: frozenset[str]) -> None:
        """Park all other parts; their device memory is back with the device on return."""
        leaving = [region for name, region in self.regions.items() if region.resident and name not in parts]
        if not leaving:
            return
        with self._copying():
            for region in leaving:
                region.copy_out()
        for region in leaving:
            region.free()
        if self._stream is not None:
            torch._C._cuda_clearCublasWorkspaces()
            torch.cuda.empty_cache()

    def settle(self) -> None:
        """What the current stream does from here on finds the moments complete."""
        if self._arrived is not None:
            torch.cuda.current_stream(self._device).wait_event(self._arrived)
            self._arrived = None

    def grow_to(self, parts: frozenset[str]) -> None:
        """Bring parts back, masters before the parameters that are made from them; of the moments see `settle`."""
        wanted = [self.regions[name] for name in TRAINER_PARTS if name in parts]
        missing = [region for region in wanted if not region.resident]
        fp32, parameters = self.regions["masters"], self.regions["parameters"]
        makes_parameters = parameters in missing and not parameters.keep
        guest = [fp32] if makes_parameters and not fp32.resident and fp32 not in missing else []
        late = [region for region in missing if region.name == "moments"]
        ready = self._start([*guest, *(region for region in missing if region.keep and region not in late)])
        if late:
            self._arrived = self._start(late, pieces=True)
        self._start([region for region in missing if not region.keep])  # while the copies run
        if ready is not None:
            ready.synchronize()
        if makes_parameters:
            for adam in self._adams:
                adam._copy_main_params_to_model_params()
        if guest:
            self.shrink_to(frozenset(self.held()) - {"masters"})

    def _start(self, regions: Sequence[Region], pieces: bool = False) -> torch.cuda.Event | None:
        """Start bringing the regions; on a GPU, an event for when they are there."""
        if self._stream is None:
            for region in regions:
                region.bring()
            return None
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            for region in regions:
                region.bring(pieces)
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record(self._stream)
        return event

    @contextmanager
    def _copying(self) -> Iterator[None]:
        """Copies inside run on a stream of their own, after what was computed before; done on return."""
        if self._stream is None:
            yield
            return
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            yield
        self._stream.synchronize()


def _stream(device: torch.device) -> torch.cuda.Stream | None:
    return torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]


def _regions(
    optimizer: Optimizer,
    parameters: Sequence[Tensor],
    reference: Sequence[Tensor],
    base: Sequence[Tensor],
    critic: tuple[Optimizer, Sequence[Tensor]] | None,
) -> dict[str, Region]:
    move_into_flat(reference)
    own = Region("parameters", parameters)
    # each parameter has its whole master here, unless the optimiser is shared out over ranks
    own.keep = not optimizer.masters or optimizer.config.use_distributed_optimizer
    gradients, second = _gradients(optimizer), list[Tensor]()
    if critic is not None:
        gradients += _gradients(critic[0])
        second = [*critic[0].masters, *_moments(critic[0]), *critic[1]]
    regions = (
        Region("masters", optimizer.masters),
        Region("moments", _moments(optimizer)),
        own,
        Region("gradients", gradients, keep=False),
        Region("reference", reference),
        Region("base", base),
        Region("critic", second),
    )
    return {region.name: region for region in regions}


def _moments(optimizer: Optimizer) -> list[Tensor]:
    """Adam's, where they are on the device in an update."""
    adams = [] if optimizer.streams else optimizer.adams
    return [value for key in ("exp_avg", "exp_avg_sq") for adam in adams for value in _states(adam, key)]


def _gradients(optimizer: Optimizer) -> list[Tensor]:
    buffers = [*optimizer.model.buffers, *optimizer.model.expert_parallel_buffers]
    return [buffer.grad_data for buffer in buffers]


def _states(adam: Any, key: str) -> list[Tensor]:
    return [state[key] for state in adam.optimizer.state.values()]
