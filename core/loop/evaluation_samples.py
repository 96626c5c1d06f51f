"""The samples of an evaluation, kept in a file of their own beside those of the steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from core.config.schema import RunConfig
from core.processes.device import resolve_device, resolve_dtype
from core.samples import Sample
from core.trajectory import StepRecord, evaluation_path, write_step


def keep_evaluation(
    run_dir: Path, config: RunConfig, name: str, step: int, samples: Sequence[Sample], rates: Mapping[str, float]
) -> None:
    """Store the samples of a set as those of a step are, but without what an update makes of them.

    Collective: none; one process per set and step.
    """
    record = StepRecord.from_samples(
        samples,
        advantages=[0.0] * len(samples),
        logprobs_old=[[math.nan] * len(sample.response_tokens) for sample in samples],
        seeds=[sample.seed or 0 for sample in samples],
        step=step,
        run=config.name,
        model=config.model.name or config.model.path,
        dtype=resolve_dtype(config.model.dtype, resolve_device(config.placement.device)),
        metrics=rates,
    )
    write_step(evaluation_path(run_dir, name, step), record)
