"""Options of engines that only go together."""

from __future__ import annotations

import math

from core.checks.attention_groups import OUTPUT, SIZE, SWITCH
from launchers.moving_in.draft import Draft


def attention_groups(draft: Draft) -> None:
    """Groups of an engine's ranks that each have the whole attention: equally large ones, of an engine on one node."""
    flags = {key: draft.settings[key].source for key in (SWITCH, SIZE, OUTPUT) if key in draft.settings}
    ranks, wanted = draft.value("placement.engine_tensor_parallel", 1), draft.value(SIZE, 1)
    size = math.gcd(ranks, wanted) if isinstance(wanted, int) else 1
    if draft.value(SWITCH, False) and size > 1 and not _over_nodes(draft, ranks):
        if size != wanted:
            draft.put(SIZE, size, flags[SIZE], "a divisor of engine_tensor_parallel")
        return
    for key, flag in flags.items():
        del draft.settings[key]
        if wanted != 1:
            why = "only the ranks of an engine on one node have attention of their own, in groups of the same size"
            do = "leave it out; engines on one node are placement.engine_tensor_parallel of its GPUs"
            draft.lose(flag, why, do, "memory")
        else:
            draft.skip(flag, "it asks for nothing without a dp_size of 2 or more")


def _over_nodes(draft: Draft, ranks: int) -> bool:
    together = draft.value("placement.engines", "colocated") == "colocated"
    return bool(together and ranks > draft.value("placement.trainers_per_node", 1))
