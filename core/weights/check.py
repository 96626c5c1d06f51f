"""Proof that an engine has the trainer's weights: bit by bit, against what it reads from files of them.

After a sync the engine tells a checksum of every tensor it computes with, as it lies in its memory: fused, split over
its ranks, in its own precision. Then it loads the same weights from files, as a fresh engine would, and tells again. If
both agree, the sync has brought exactly what loading brings. Both SGLang versions have the route (`/weights_checker`).

What it does not see: names or layouts that the trainer's export gets wrong, for both ways share it. That shows in
`train/train_rollout_logprob_abs_diff` of every step.
"""

from __future__ import annotations

from collections.abc import Sequence

from core.engines.roster import Engine, Engines
from core.sglang.engine_sizes import BUCKET_BYTES
from core.sglang.errors import EngineDied
from core.sglang.weights import Checksums, checksums
from core.weights.files import WeightFiles
from core.weights.sync import WeightSource


class WeightsDiffer(RuntimeError):
    """An engine does not have the weights that it was sent."""


class WeightCheck:
    """Checks every n-th sync, from the first on. Collective: all trainer ranks."""

    def __init__(self, registry: Engines, files: WeightFiles, interval: int) -> None:
        """Begin before the first sync.

        Args:
        files: a folder that the engines see; there must be room for one copy of the model.
        interval: syncs from one check to the next.
        """
        self._registry = registry
        self._files = files
        self._interval = interval
        self._num_syncs = 0

    def __call__(self, source: WeightSource, engines: Sequence[Engine], version: str) -> None:
        """Check this rank's engines, if it is due.

        Raises:
            WeightsDiffer: naming engine, version and tensors.
            EngineError: the engine cannot tell checksums.
        """
        self._num_syncs += 1
        if (self._num_syncs - 1) % self._interval:
            return
        synced = self._ask(engines)
        delivery = self._files.open([engine for engine in engines if engine.alive], version)
        for tensors in source.named_buckets(BUCKET_BYTES):
            delivery.post(tensors)
        delivery.close()
        for engine, loaded in delivery.loaded:
            for other, found in synced:
                if other is engine:
                    compare(engine.name, version, found, loaded)

    def _ask(self, engines: Sequence[Engine]) -> list[tuple[Engine, Checksums]]:
        """One after the other: it is quick beside the files."""
        answers: list[tuple[Engine, Checksums]] = []
        for engine in engines:
            if engine.alive:
                try:
                    answers.append((engine, checksums(engine.client)))
                except EngineDied as error:
                    self._registry.mark_dead(engine, error)
        return answers


def compare(engine: str, version: str, found: Checksums, wanted: Checksums) -> None:
    """Pure. Raises WeightsDiffer unless the checksums agree; both are of the same engine, so the names do."""
    wrong = [name for name in wanted if found.get(name) != wanted[name]]
    if wrong or not wanted:
        shown = ", ".join(wrong[:5]) + (", …" if len(wrong) > 5 else "")
        raise WeightsDiffer(
            f"engine {engine}, version {version}: {len(wrong)} of its {len(wanted)} tensors are not the trainer's "
            f"({shown}): samples of this run come from another model than the one that is trained. Set "
            "placement.weight_sync to files and report it"
        )
