"""Places of the experts' rows and tensors: tokens sorted by expert, tiles of them, tables of addresses. Plain torch.

Legend: T tokens, k experts of each, S = T k slots, E experts, M tiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Slots:
    """One slot for each token and expert of it, those of an expert adjacent and in the order of the tokens.

    Attributes:
        token: [S] the token of a slot; None: slot s is of token s.
        place: [T, k] the slots of a token; None: of token t slot t.
        starts: [E + 1] first slot of each expert, and S.
    """

    token: Tensor | None
    place: Tensor | None
    starts: Tensor

    @classmethod
    def of(cls, chosen: Tensor, num_experts: int) -> Slots:
        """The slots of [T, k] chosen experts."""
        expert, order = chosen.flatten().int().sort(stable=True)
        starts = torch.searchsorted(expert, torch.arange(num_experts + 1, dtype=expert.dtype, device=expert.device))
        place = torch.empty_like(order)
        place[order] = torch.arange(order.numel(), device=order.device)
        token = (order // chosen.shape[1]).int()
        return cls(token, place.int().view(chosen.shape), starts.int())

    def experts_of(self, slots: Tensor) -> Tensor:
        """Experts that these slots are of."""
        return torch.searchsorted(self.starts[1:].to(slots.dtype), slots, right=True)

    def of_experts(self, dtype: torch.dtype, num_slots: int) -> Tensor:
        """[S, E] 1 where a slot is of an expert, else 0."""
        numbers = torch.arange(num_slots, device=self.starts.device)
        chosen = self.experts_of(numbers)[:, None]
        return chosen.new_zeros(num_slots, self.starts.numel() - 1, dtype=dtype).scatter_(1, chosen, 1.0)

    def spread(self, weights: Tensor) -> Tensor:
        """[T, E] of [T, k] weights of a token's experts, 0 for the others; without `place` [S, E] of [S]."""
        slots = torch.arange(len(weights), device=weights.device) if self.place is None else self.place.long()
        chosen = self.experts_of(slots).view(len(weights), -1)
        whole = weights.new_zeros(len(weights), self.starts.numel() - 1)
        return whole.scatter(1, chosen, weights.view(len(weights), -1))

    @classmethod
    def sorted(cls, tokens_per_expert: Tensor, device: torch.device) -> Slots:
        """The slots of rows that are sorted already: [E] rows of each expert."""
        ends = tokens_per_expert.to(device).cumsum(0).int()
        return cls(None, None, torch.cat((ends.new_zeros(1), ends)))


@dataclass(frozen=True)
class Tiles:
    """Slots in tiles of one expert each.

    Attributes:
        expert: [M], -1 for a tile that is not needed. row: [M] the tile's first slot.
    """

    expert: Tensor
    row: Tensor
    starts: Tensor
    num_slots: int

    @property
    def number(self) -> int:
        """M."""
        return self.expert.numel()

    @classmethod
    def of(cls, starts: Tensor, num_slots: int, size: int) -> Tiles:
        """Tiles of `size` slots; an expert's last one is not full."""
        num_experts = starts.numel() - 1
        needed = torch.diff(starts).add(size - 1).div(size, rounding_mode="floor")
        ends = needed.cumsum(0).int()
        numbers = torch.arange(num_slots // size + num_experts, dtype=torch.int32, device=starts.device)
        expert = torch.searchsorted(ends, numbers, right=True).int()
        within = expert.clamp(max=num_experts - 1).long()
        row = starts[within] + (numbers - (ends - needed)[within]) * size
        return cls(torch.where(expert < num_experts, expert, -1), row.int(), starts, num_slots)


class ExpertTensors:
    """Tensors of one shape, one per expert, each somewhere on the device.

    Attributes:
        first: the first expert's. distances: [E] from it to each expert's, in elements.
    """

    def __init__(self) -> None:
        self.first = torch.empty(0)
        self.distances = torch.empty(0, dtype=torch.int64)
        self._addresses: list[int] = []

    @property
    def shape(self) -> torch.Size:
        """Shape of one expert's tensor."""
        return self.first.shape

    def at(self, tensors: Sequence[Tensor]) -> ExpertTensors:
        """This table, for where these tensors are now; they move only when memory is given back between phases."""
        addresses = [tensor.data_ptr() for tensor in tensors]
        if addresses != self._addresses:
            self.first, self._addresses = tensors[0].detach(), addresses
            size = self.first.element_size()
            distances = [(address - addresses[0]) // size for address in addresses]
            self.distances = torch.tensor(distances, dtype=torch.int64).to(self.first.device)
        return self
