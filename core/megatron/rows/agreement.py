"""Share of the replayed experts that the trainer's own routers would have chosen, as metrics of an update.

Legend: T row tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from core.megatron.layers.routing import RowCount

OF_A_STEP = "train/routing_agreement"
OF_THE_FIRST = "train/routing_agreement_first"


class Agreement:
    """What the routers of this rank count while they replay the experts of an optimiser step."""

    def __init__(self) -> None:
        self._rows: list[dict[int, Tensor]] = []

    def of_row(self, samples: Tensor) -> RowCount:
        """A place where the routers count for a row, of whose tokens these numbers of samples know experts ([T])."""
        self._rows.append({})
        return RowCount(samples, self._rows[-1])

    def metric(self, everybody: Any) -> dict[str, float]:
        """Share over tokens of samples, layers and experts of a token; empty where none was replayed on any rank.

        Args:
            everybody: the group of all trainer ranks, over which tensors on the CPU travel.
        Collective: all trainer ranks, an all-reduce of two whole numbers; each layer of a row is counted by the one
        rank that computes it, as ranks with experts share out neither rows' tokens nor a layer's router.
        """
        counts = [count for row in self._rows for count in row.values()]
        total = torch.stack(counts).sum(0).cpu() if counts else torch.zeros(2, dtype=torch.int64)
        dist.all_reduce(total, group=everybody)
        agreed, replayed = total.tolist()
        return {OF_A_STEP: agreed / replayed} if replayed else {}


def of_update(steps: Sequence[dict[str, float]]) -> dict[str, float]:
    """The metrics of an update: the mean over its optimiser steps, and the first one's.

    The first step has the weights that the samples were made with, if these are the newest; later ones have moved.

    Args:
        steps: the metrics of each optimiser step; those that replayed nothing have none of this.
    """
    found = [step[OF_A_STEP] for step in steps if OF_A_STEP in step]
    first = {OF_THE_FIRST: steps[0][OF_A_STEP]} if OF_A_STEP in steps[0] else {}
    return {OF_A_STEP: sum(found) / len(found), **first} if found else {}
