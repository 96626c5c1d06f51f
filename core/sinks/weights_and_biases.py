"""The sink `wandb`: Weights & Biases. Offline unless asked otherwise: nodes of a cluster mostly have no internet.

`wandb sync RUN_DIR/wandb/offline-run-*` sends what was kept, from a machine that has. All attempts of a run directory
are one run there. Left out: code and models.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from core.sinks.sink import RunInfo, ShownSample, evaluation_scalars


class WeightsAndBiases:
    """Hands metrics to the package `wandb`.

    Args:
        project: where the run appears.
        mode: "offline", "online" or "disabled"; None: the environment's WANDB_MODE, else offline.
        init: further arguments of wandb.init: entity, group, tags, …
    """

    def __init__(self, project: str = "ebbtide", mode: str | None = None, **init: Any) -> None:
        self._init = {"project": project, "mode": mode or os.environ.get("WANDB_MODE") or "offline", **init}

    def begin(self, run: RunInfo) -> None:
        """Begin wandb's run, or take it up again."""
        import wandb

        own = {
            "name": run.name,
            "id": re.sub(r"[^\w.-]", "-", run.directory.absolute().name),
            "resume": "allow",
            "dir": str(run.directory),
            "config": dict(run.run_file),
            "settings": wandb.Settings(console="off"),  # the attempt's logs have it
        }
        self._run: Any = wandb.init(**{**own, **self._init})

    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        """One row of wandb's history."""
        self._run.log(dict(metrics), step=step)

    def samples(self, step: int, samples: Sequence[ShownSample]) -> None:
        """A table in the row of the step."""
        import wandb

        columns = list(ShownSample.__dataclass_fields__)
        rows = [[getattr(one, name) for name in columns] for one in samples]
        self._run.log({"samples": wandb.Table(columns=columns, data=rows)}, step=step)

    def evaluation(self, step: int, results: Mapping[str, Mapping[str, float]]) -> None:
        """Log the results into the row of the step that the evaluation was taken before."""
        self._run.log(evaluation_scalars(results), step=step)

    def end(self) -> None:
        """Write what is left."""
        self._run.finish()
