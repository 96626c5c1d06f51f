"""What routers are told of a row: experts to take in place of their own, and where to note what they take.

Legend: T row tokens, L layers, k experts of a token.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

OWN = -1  # in place of an expert: the router chooses


@dataclass(frozen=True)
class RowCount:
    """A count of replayed experts that the routers would have taken themselves.

    Attributes:
        samples: [T] int64, the number of samples whose experts a token has, so that a shared prompt counts for all.
        found: takes what `agreeing` gives, by layer; one that is recomputed counts again in the same place.
    """

    samples: Tensor
    found: dict[int, Tensor]


@dataclass(frozen=True)
class RowRouting:
    """What the routers of a pass are told of its row.

    Attributes:
        replayed: [T, L, k] on the device, `OWN` where the router chooses; None: it always does.
        noted: takes [T, k] int16 on the CPU by layer, from 0; None: nothing is noted.
        counted: counts where the router would have taken what is replayed; None: nobody does.
    """

    replayed: Tensor | None = None
    noted: dict[int, Tensor] | None = None
    counted: RowCount | None = None

    def settle(self, layer: int, own: Tensor) -> Tensor:
        """[T, k] experts to take, where the router itself would take `own`."""
        chosen = own
        if self.replayed is not None:
            given = self.replayed[:, layer].to(own.dtype)
            chosen = torch.where(given == OWN, own, given)
            if self.counted is not None:
                self.counted.found[layer] = agreeing(given, own, self.counted.samples)
        if self.noted is not None:
            self.noted[layer] = chosen.short().cpu()
        return chosen


def agreeing(given: Tensor, own: Tensor, samples: Tensor) -> Tensor:
    """[2] int64 on the device: the number of given experts that are among the router's own, and of all given.

    Args:
        given: [T, k] experts; in which order a router takes its own does not count.
        own: [T, k].
        samples: [T] for how many samples a token counts, 0 where none is given.
    """
    among = (given[:, :, None] == own[:, None, :]).any(2).sum(1)
    return torch.stack([(among * samples).sum(), samples.sum() * given.shape[1]])
