"""Adam whose masters and moments stay in host memory: a step has them pass through the device, piece by piece.

    in        ├ 3 ┤├ 4 ┤├ 5 ┤        host to device
    compute      ├ 2 ┤├ 3 ┤├ 4 ┤     Adam, and the rounding to the parameters
    out             ├ 1 ┤├ 2 ┤├ 3 ┤  device to host

A link carries both directions at once, so a step takes as long as 12 bytes per parameter one way. Each element goes
through the same arithmetic as where everything is resident (torch's fused AdamW), so the results are the same bits.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from core.megatron.sizes.buffers import room
from core.megatron.sizes.streaming import PIECE, num_arrays
from core.megatron.state.flat import flat_parts
from core.megatron.state.passing import Passing, host_array


@dataclass(frozen=True)
class _Slice:
    """Elements of one tensor that are in one piece.

    Attributes:
        begin, end: within the tensor, as one row of elements.
        offset: of the first one within the piece.
    """

    parameter: Tensor
    begin: int
    end: int
    offset: int

    def of(self, tensor: Tensor) -> Tensor:
        """[end - begin] of a tensor shaped as the parameter."""
        return tensor.view(-1)[self.begin : self.end]

    def within(self, piece: Tensor) -> Tensor:
        """[end - begin] of one array of the piece."""
        return piece[self.offset : self.offset + self.end - self.begin]


@dataclass(frozen=True)
class _Piece:
    """Some elements of all arrays: host memory [n] each, and what they belong to, by number of the parameter group."""

    host: Sequence[Tensor]
    slices: Mapping[int, list[_Slice]]


class StreamedAdam:
    """Takes the place of one of Megatron's optimizers' step.

    What Adam works on keeps its shape, device and gradient, but has no memory there. Collective: none.
    """

    def __init__(self, adam: Any) -> None:
        """Move the state to the host: masters as they are now, moments of 0. The device has their memory back.

        Args:
            adam: built, and its state not yet made.
        """
        self._adam = adam
        numbered = [(n, one) for n, group in enumerate(adam.optimizer.param_groups) for one in group["params"]]
        self._parameters = [parameter for _, parameter in numbered]
        self._group = {id(parameter): number for number, parameter in numbered}
        self._rounded = {id(master): model for model, master in _pairs(adam)}
        self._masters = [parameter for parameter in self._parameters if id(parameter) in self._rounded]
        self._device = self._parameters[0].device if self._parameters else torch.device("cpu")
        self._home: dict[int, list[Tensor]] = {}
        self._pieces: list[_Piece] = []
        for part in flat_parts(self._parameters):
            self._move(part, PIECE)
        for parameter in self._parameters:
            moments = dict(zip(("exp_avg", "exp_avg_sq"), self._home[id(parameter)][-2:], strict=True))
            adam.optimizer.state[parameter] = {"step": torch.zeros((), device=self._device), **moments}
        self._passing: Passing | None = None
        adam.optimizer.step = self._step
        adam._copy_main_params_to_model_params = _nothing

    @property
    def host_bytes(self) -> int:
        """Host memory of masters and moments."""
        return sum(array.nbytes for piece in self._pieces for array in piece.host)

    def begin(self) -> None:
        """Have the first pieces come in, while the gradients' norm is added up."""
        if self._passing is None:
            self._passing = Passing(self._device, [piece.host for piece in self._pieces])

    def give_up(self) -> None:
        """Forget what `begin` started."""
        if self._passing is not None:
            self._passing.stop()
        self._passing = None

    @contextmanager
    def on_host(self) -> Iterator[None]:
        """Masters, too, are where they are: a checkpoint reads and writes host memory inside."""
        empty = [master.data for master in self._masters]
        for master in self._masters:
            master.grad = None
            master.data = self._home[id(master)][0]
        try:
            yield
        finally:
            for master, data in zip(self._masters, empty, strict=True):
                master.data = data

    def _step(self) -> None:
        self.begin()
        passing, self._passing = self._passing, None
        assert passing is not None
        states = [self._adam.optimizer.state[parameter]["step"] for parameter in self._parameters]
        if states:
            torch._foreach_add_(states, 1)
        count = states[0].to(self._device) if states else torch.zeros(())
        groups = self._adam.optimizer.param_groups  # others after a load
        for number, arrays in enumerate(passing):
            for group, slices in self._pieces[number].slices.items():
                self._apply(groups[group], slices, arrays, count)

    def _apply(self, group: Any, slices: Sequence[_Slice], arrays: Sequence[Tensor], count: Tensor) -> None:
        """Adam over slices of one parameter group, and the new masters rounded to the parameters."""
        slices = [one for one in slices if one.parameter.grad is not None]
        if not slices:
            return
        first, second = ([one.within(array) for one in slices] for array in arrays[-2:])
        own = [self._worked_on(one, arrays) for one in slices]
        torch._fused_adamw_(
            own,
            [one.of(one.parameter.grad) for one in slices],  # type: ignore[arg-type]
            first,
            second,
            [],
            [count] * len(slices),
            lr=group["lr"],
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            amsgrad=False,
            maximize=False,
        )
        rounded = [self._rounded.get(id(one.parameter)) for one in slices]
        pairs = [(one.of(old), new) for one, old, new in zip(slices, rounded, own, strict=True) if old is not None]
        if pairs:
            torch._foreach_copy_([old for old, _ in pairs], [new for _, new in pairs])

    def _worked_on(self, one: _Slice, arrays: Sequence[Tensor]) -> Tensor:
        """The slice of the master, which passes; of a parameter that is its own master, in its place."""
        is_master = id(one.parameter) in self._rounded
        return one.within(arrays[0]) if is_master else one.of(one.parameter.data)

    def _move(self, parameters: Sequence[Tensor], size: int) -> None:
        """Give these consecutive tensors room in arrays of the host, and cut that into pieces."""
        numel = sum(room(parameter.numel()) for parameter in parameters)
        arrays = [host_array(numel, self._device) for _ in range(num_arrays(bool(self._masters)))]
        pieces = [
            _Piece([array[first : first + size] for array in arrays], defaultdict(list))
            for first in range(0, numel, size)
        ]
        place = 0
        for parameter in parameters:
            home = [array[place : place + parameter.numel()].view(parameter.shape) for array in arrays]
            self._home[id(parameter)] = home
            if id(parameter) in self._rounded:
                home[0].copy_(parameter.data)
                parameter.data.untyped_storage().resize_(0)
            for number, one in _cut(parameter, place, size):
                pieces[number].slices[self._group[id(parameter)]].append(one)
            place += room(parameter.numel())
        self._pieces += pieces


def _cut(parameter: Tensor, place: int, size: int) -> Iterator[tuple[int, _Slice]]:
    """The number of the piece, and the tensor's elements in it; the tensor begins at `place`."""
    begin, numel = 0, parameter.numel()
    while begin < numel:
        piece, offset = divmod(place + begin, size)
        end = min(numel, begin + size - offset)
        yield piece, _Slice(parameter, begin, end, offset)
        begin = end


def _pairs(adam: Any) -> Iterator[tuple[Tensor, Tensor]]:
    """The model's tensor, or this rank's share of it, and its master."""
    prefix = "shard_" if hasattr(adam, "shard_float16_groups") else ""
    models = getattr(adam, f"{prefix}float16_groups", [])  # none where all parameters are fp32
    masters = getattr(adam, f"{prefix}fp32_from_float16_groups", [])
    for some, others in zip(models, masters, strict=True):
        yield from zip(some, others, strict=True)


def _nothing() -> None:
    pass
