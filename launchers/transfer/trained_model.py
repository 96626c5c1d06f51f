"""The model of a run after some steps: where it lies as a HuggingFace directory, or the checkpoint that holds it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from common.mistake import Wrong
from core.config.schema import RunConfig
from core.run_dir.run_directory import RunDirectory


@dataclass(frozen=True)
class TrainedModel:
    """A run's model after `step` steps.

    Attributes:
        path: of the HuggingFace directory, or a name as in `model.path`; None: only a checkpoint has it.
    """

    step: int
    path: str | None


def trained_model(run: RunDirectory, config: RunConfig, step: int | None) -> TrainedModel:
    """The model after `step` steps; None: after the most steps of which there is one.

    Raises:
        Wrong: there is none of that step; the message lists those that there are.
    """
    found = dict(_models(run, config))
    chosen = max(found) if step is None else step
    if chosen not in found:
        listed = ", ".join(map(str, sorted(found)))
        remedy = "choose one of these, or keep more of them with checkpoint.keep or checkpoint.save_hf"
        raise Wrong(f"no model of {run.path} after {chosen} steps", f"one that is there: {listed}", remedy)
    return TrainedModel(chosen, found[chosen])


def _models(run: RunDirectory, config: RunConfig) -> Iterator[tuple[int, str | None]]:
    """Step and place; of a step that comes twice the later place counts, as it needs no export."""
    yield 0, config.model.path
    yield from ((step, None) for step in run.checkpoint_steps())
    for path in run.hf_steps.glob("step_??????"):
        yield int(path.name.removeprefix("step_")), str(path)
    last = config.rollout.num_rollout
    if last in run.checkpoint_steps() and _is_newer(run.hf_model, run.checkpoint(last)):
        yield last, str(run.hf_model)


def _is_newer(model: Path, checkpoint: Path) -> bool:
    """Whether the final model is of this checkpoint: of a run that went on, an older one may be there still."""
    return model.exists() and model.stat().st_mtime >= checkpoint.stat().st_mtime
