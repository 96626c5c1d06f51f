"""A rank's share of a global batch: its rows, and the results of all ranks put together.

Legend: N response tokens of a list of samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from core.algorithm.aggregation import token_weights
from core.config.schema import RunConfig
from core.megatron.parallel import Layout
from core.megatron.rows.agreement import Agreement
from core.megatron.rows.packing import Unit, build_row, plan_rows
from core.megatron.rows.routing import Routing, known_by, row_routing
from core.megatron.rows.schedule import Output
from core.megatron.rows.tokens import MicroBatch, MicroBatches, Picks, TokenTable, micro_batch
from core.processes.collective import gather_lists
from core.processes.device import peak_memory
from core.samples import TrainSample


@dataclass(frozen=True)
class RankShare:
    """What models of one layout have in common: how samples become their rows, and outputs everybody's."""

    config: RunConfig
    layout: Layout
    device: str

    def micro_batches(
        self,
        samples: Sequence[TrainSample],
        chosen: Sequence[int],
        table: TokenTable,
        values: Picks | None,
        routings: Sequence[Routing | None] | None = None,
        agreement: Agreement | None = None,
    ) -> MicroBatches:
        """This rank's rows of the samples at the `chosen` places.

        Args:
            routings: experts to replay, of each sample; None: the routers choose.
            agreement: counts where the routers would have chosen the same; None: nobody does.
        Collective: none.
        """
        train, placement = self.config.train, self.config.placement
        part, places = [samples[index] for index in chosen], torch.tensor(chosen, dtype=torch.int64)
        replayed = None if routings is None else [routings[index] for index in chosen]
        plan = plan_rows(part, train.max_tokens_per_micro_batch, self.layout.dp_size, train.share_prompts)
        multiple = placement.tensor_parallel if placement.sequence_parallel else 1

        def build(units: Sequence[Unit]) -> MicroBatch:
            row = build_row(part, units, multiple)
            experts = None if replayed is None else row_routing(part, replayed, units, len(row.tokens))
            counted = None if agreement is None else agreement.of_row(known_by(part, replayed, units, len(row.tokens)))
            row = replace(row, sample_index=places[row.sample_index], routing=experts, counted=counted)
            return micro_batch(row, table, values, self.device)

        return MicroBatches(plan[self.layout.dp_rank], build)

    def weights(self, samples: Sequence[TrainSample]) -> list[NDArray[np.float32]]:
        """The weight of each token of each sample in the loss of their global batch."""
        masks, groups = [s.loss_mask for s in samples], [s.group for s in samples]
        longest = self.config.rollout.max_response_tokens
        return token_weights(masks, self.config.algorithm.loss_aggregation, groups, longest)

    def collect(self, outputs: Sequence[Output], table: TokenTable, computed: Tensor) -> Tensor:
        """[N] what the models gave for tokens: each replica fills in its own, the sum is everybody's; NaN if not
        computed. Collective: all trainer ranks.
        """
        flat = torch.zeros(table.num_tokens)
        if self.layout.speaks_for_replica:
            for output in outputs:
                flat[output.index] = output.logprobs
        dist.all_reduce(flat, group=self.layout.control)
        flat[~computed] = torch.nan
        return flat

    def add_up(self, outputs: Sequence[Output]) -> dict[str, float]:
        """Metrics over micro-batches and replicas: sums, and maxima where the name ends in _max.

        Collective: all trainer ranks.
        """
        own: list[dict[str, float]] = []
        if self.layout.speaks_for_replica:
            own = [output.metrics | {"perf/train_tokens": float(output.num_tokens)} for output in outputs]
        return combine(gather_lists(own), 1.0)


def peaks_of_all(device: str) -> dict[str, float]:
    """The memory of the rank that has held most so far, as metrics. Collective: all trainer ranks."""
    return combine(gather_lists([peak_memory(device)]), 1.0)


def combine(parts: Sequence[dict[str, float]], share: float) -> dict[str, float]:
    """Sum times `share`, or the maximum where the name ends in _max."""
    result: dict[str, float] = {}
    for name in dict.fromkeys(name for part in parts for name in part):
        values = [part[name] for part in parts if name in part]
        result[name] = max(values) if name.endswith("_max") else sum(values) * share
    return result
