"""The residency table: what each owner holds of a shared GPU in each phase. Data, and nothing else.

    phase     trainer                              engine
    sync      parameters, base                     weights
    rollout   –                                    weights, KV cache, CUDA graphs
    eval      –                                    weights, KV cache, CUDA graphs
    score     –                                    –
    update    everything                           –
    save      everything but the gradients         –

What the next phase does not want is given up when it begins, so a phase that follows its like moves nothing. Parts of a
trainer for which there is room beside the engine stay in all phases (`table`). The base is what is not trained: frozen
parameters, or all of them where adapters are trained; parameters are what is trained alone.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

TRAINER, ENGINE = "trainer", "engine"
# in the order in which they are taken: parameters may be made from the masters, so those come first
TRAINER_PARTS = ("masters", "moments", "parameters", "gradients", "reference", "base", "critic")
ENGINE_PARTS = ("weights", "kv_cache", "cuda_graph")


@dataclass(frozen=True)
class Holding:
    """The parts of each owner that are on the GPU."""

    trainer: frozenset[str] = frozenset()
    engine: frozenset[str] = frozenset()

    def of(self, owner: str) -> frozenset[str]:
        """The parts of one owner."""
        return self.trainer if owner == TRAINER else self.engine


_GENERATING = Holding(engine=frozenset(ENGINE_PARTS))

TABLE: Mapping[str, Holding] = {
    "sync": Holding(trainer=frozenset({"parameters", "base"}), engine=frozenset({"weights"})),
    "rollout": _GENERATING,
    "eval": _GENERATING,
    "score": Holding(),
    "update": Holding(trainer=frozenset(TRAINER_PARTS)),
    "save": Holding(trainer=frozenset(TRAINER_PARTS) - {"gradients"}),
}


def table(staying: Collection[str] = ()) -> Mapping[str, Holding]:
    """The residency table where these parts of a trainer never leave."""
    stay = frozenset(staying)
    return {phase: Holding(holding.trainer | stay, holding.engine) for phase, holding in TABLE.items()}


# Where GPUs hold everything at once, nothing is given up in any phase.
EVERYTHING: Mapping[str, Holding] = {
    phase: Holding(trainer=frozenset(TRAINER_PARTS), engine=frozenset(ENGINE_PARTS)) for phase in TABLE
}
