"""What routers are told of a row: experts to take in place of their own, and where to note what they take.

Legend: T row tokens, L layers, k experts of a token.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

OWN = -1  # in place of an expert: the router chooses


@dataclass(frozen=True)
class RowRouting:
    """What the routers of a pass are told of its row.

    Attributes:
        replayed: [T, L, k] on the device, `OWN` where the router chooses; None: it always does.
        noted: takes [T, k] int16 on the CPU by layer, from 0; None: nothing is noted.
    """

    replayed: Tensor | None = None
    noted: dict[int, Tensor] | None = None

    def settle(self, layer: int, own: Tensor) -> Tensor:
        """[T, k] experts to take, where the router itself would take `own`."""
        chosen = own
        if self.replayed is not None:
            given = self.replayed[:, layer].to(own.dtype)
            chosen = torch.where(given == OWN, own, given)
        if self.noted is not None:
            self.noted[layer] = chosen.short().cpu()
        return chosen
