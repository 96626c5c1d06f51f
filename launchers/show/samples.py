"""`ebbtide inspect`: a step's samples as a person wants to read them. Reads the trajectory store only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from core.run_dir.run_directory import RunDirectory
from core.samples import Span, Status
from core.trajectory import (
    StepRecord,
    TrajectoryError,
    evaluated_sets,
    evaluation_path,
    list_evaluations,
    list_steps,
    read_step,
    step_path,
)
from launchers.show.plain_text import visible
from launchers.show.sample_choice import Choice

NUM_REASONS = 3
MOST_SHOWN = 20  # of the samples that a choice takes
EVERY_SAMPLE = Choice()
Values = NDArray[Any]


class InspectError(ValueError):
    """There is nothing to show. The message says what there is."""


def show(
    run_dir: Path,
    step: int | None = None,
    best: int | None = None,
    worst: int | None = None,
    choice: Choice = EVERY_SAMPLE,
    evaluation: str | None = None,
) -> RenderableType:
    """A step's summary and its samples of highest and lowest reward, for a rich console.

    Args:
        step: None: the last one stored.
        best, worst: how many samples of each; both None: one of each, or the first of those that `choice` asks for.
        choice: what the samples must be.
        evaluation: name of an evaluation set: its samples, of the evaluation before the step.
    Raises:
        InspectError: no run directory, no steps yet, no such step, or a damaged file.
    """
    if min(best or 0, worst or 0) < 0:
        raise InspectError(f"best = {best}, worst = {worst}; wanted 0 or more samples")
    record = stored_step(run_dir, step, evaluation)
    chosen = choice.indices(record)
    if not chosen and choice.asked:
        raise InspectError(f"step {record.step}: found no sample that is {choice}; wanted one: leave the wish out")
    summary = _summary(record, _stored_steps(run_dir, evaluation), evaluation)
    if best is None and worst is None and choice.asked:
        more = [Text(f"and {len(chosen) - MOST_SHOWN} more: --jsonl gives all")] if len(chosen) > MOST_SHOWN else []
        return Group(summary, *(_sample(record, one, str(choice)) for one in chosen[:MOST_SHOWN]), *more)
    if best is None and worst is None:
        best = worst = 1
    return Group(summary, *_samples(record, chosen, best or 0, worst or 0))


def stored_step(run_dir: Path, step: int | None, evaluation: str | None = None) -> StepRecord:
    """A step as it is stored, or an evaluation before it.

    Args:
        step: None: the last one.
        evaluation: name of the set.
    Raises:
        InspectError: no run directory, no steps yet, no such step, or a damaged file.
    """
    steps = _stored_steps(run_dir, evaluation)
    chosen = steps[-1] if step is None else step
    if chosen not in steps:
        of_set = f" of {evaluation}" if evaluation else ""
        raise InspectError(f"step {chosen}{of_set} is not stored in {run_dir}; wanted one of {step_ranges(steps)}")
    try:
        return read_step(evaluation_path(run_dir, evaluation, chosen) if evaluation else step_path(run_dir, chosen))
    except TrajectoryError as error:
        raise InspectError(str(error)) from error


def _stored_steps(run_dir: Path, evaluation: str | None) -> list[int]:
    steps = list_steps(run_dir) if run_dir.is_dir() and evaluation is None else []
    if evaluation is not None and RunDirectory(run_dir).run_file.exists():
        steps = list_evaluations(run_dir, evaluation)
        if not steps:
            there = ", ".join(evaluated_sets(run_dir)) or "none yet"
            raise InspectError(f"no evaluation of {evaluation} in {run_dir}; wanted a set that was evaluated: {there}")
    if not steps and not RunDirectory(run_dir).run_file.exists():
        remedy = "`ebbtide status` lists those in runs/"
        raise InspectError(f"{run_dir}: found no run.yaml in it; wanted a run directory: {remedy}")
    if not steps:
        raise InspectError(
            f"no steps in {run_dir} yet; wanted {run_dir}/steps/step_*.h5: wait for the first step to end"
        )
    return steps


def step_ranges(steps: list[int]) -> str:
    """[0, 1, 2, 5] as "0-2, 5"."""
    parts: list[list[int]] = []
    for step in steps:
        if parts and step == parts[-1][-1] + 1:
            parts[-1] = [parts[-1][0], step]
        else:
            parts.append([step])
    return ", ".join("-".join(map(str, part)) for part in parts)


def _summary(record: StepRecord, steps: list[int], evaluation: str | None) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    lengths, gaps = record.response_tokens.lengths, _gaps(record)
    scored = record.reward[~np.isnan(record.reward)]
    rows = {
        "model": record.model,
        "made": record.created,
        "samples": f"{len(record)} in {len(np.unique(record.group))} groups",
        "reward": f"mean {_mean(scored):.4g}, min {_min(scored):.4g}, max {_max(scored):.4g}"
        if len(scored)
        else "none",
        "response": f"mean {_mean(lengths):.1f} tokens, min {_min(lengths):.0f}, max {_max(lengths):.0f}; "
        f"truncated {_share(record.status, Status.TRUNCATED):.1%}",
        "log-prob gap": f"mean {_mean(gaps):.2e}, max {_max(gaps):.2e}  (|trainer - engine| per token)"
        if len(gaps)
        else "none, as there is none of the engine or of the trainer",
        "failed": _failures(record),
        "weights": ", ".join(sorted(set(record.weight_version))),
    }
    if record.reward_parts:
        means = {name: _mean(values[~np.isnan(values)]) for name, values in record.reward_parts.items()}
        rows["reward"] += f"; means of its parts: {_listed(means)}"
    if evaluation is not None:
        rows["rates"] = _listed(record.metrics)
    for name, value in rows.items():
        table.add_row(Text(name, style="bold"), Text(visible(value)))
    what = "" if evaluation is None else f"{evaluation} before "
    title = f"{record.run}, {what}step {record.step} (stored: {step_ranges(steps)})"
    return Panel(table, title=Text(visible(title)), title_align="left")


def _listed(numbers: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in numbers.items())


def _failures(record: StepRecord) -> str:
    reasons = Counter(reason for reason in record.failure if reason)
    listed = "; ".join(f"{count} x {reason}" for reason, count in reasons.most_common(NUM_REASONS))
    return f"{reasons.total()}: {listed}" if reasons else "0"


def _samples(record: StepRecord, chosen: list[int], num_best: int, num_worst: int) -> list[RenderableType]:
    scored = np.array([one for one in chosen if not np.isnan(record.reward[one])], dtype=np.int64)
    ranked = scored[np.argsort(record.reward[scored], kind="stable")].tolist()
    best = ranked[::-1][:num_best]
    worst = [sample for sample in ranked or chosen if sample not in best][:num_worst]
    return [
        *(_sample(record, sample, f"best {place}") for place, sample in enumerate(best, start=1)),
        *(_sample(record, sample, f"worst {place}") for place, sample in enumerate(worst, start=1)),
    ]


def _sample(record: StepRecord, sample: int, place: str) -> RenderableType:
    gaps = _gaps(record, sample)
    reward = "no reward" if np.isnan(record.reward[sample]) else f"reward {record.reward[sample]:.4g}"
    if parts := record.parts(sample):
        reward += f" ({_listed(parts)})"
    facts = (
        f"{reward}, {_advantage(record, sample)}, {record.status[sample]}, "
        f"{_length(record.loss_mask[sample])}, label {record.label[sample]}, "
        + (f"log-prob gap mean {_mean(gaps):.2e} max {_max(gaps):.2e}" if len(gaps) else "log-probs not computed")
    )
    table = Table.grid(padding=(0, 2))
    table.add_row(Text("prompt", style="bold"), Text(visible(record.prompt_text[sample].strip())))
    spans = record.spans(sample)
    if not spans:
        table.add_row(Text("response", style="bold"), Text(visible(record.response_text[sample]), style="cyan"))
    for span in spans:
        table.add_row(*_turn(record, sample, span))
    table.add_row("", Text(visible(facts)))
    if record.failure[sample]:
        table.add_row(Text("failure", style="bold red"), Text(visible(record.failure[sample])))
    title = f"{place}: group {record.group[sample]}, sample {record.index[sample]}, row {record.row[sample]}"
    return Panel(table, title=Text(title), title_align="left")


def _turn(record: StepRecord, sample: int, span: Span) -> tuple[RenderableType, RenderableType]:
    """Who spoke; what was said, and below it what is known of that."""
    own = span.role == "assistant"
    facts = [f"{span.end - span.start} tokens"]
    if own:
        logprobs = record.logprobs_engine[sample][span.start : span.end]
        facts += [f"log-prob mean {_mean(logprobs):.3g}"] if not np.isnan(logprobs).any() else []
        facts += [f"weights {span.weight_version}"] if span.weight_version else []
    if span.reward is not None:
        facts.append(f"reward {span.reward:.4g}")
    said = Text(visible(span.text.strip("\n")), style="cyan" if own else "")
    return Text(visible(span.role), style="bold"), Group(said, Text(", ".join(facts), style="dim"))


def _advantage(record: StepRecord, sample: int) -> str:
    mean = f"{record.advantage[sample]:+.4g}"
    if record.token_advantage is None:
        return f"advantage {mean}"
    values = record.token_advantage[sample]
    return f"advantage mean {mean} ({_min(values):+.4g} to {_max(values):+.4g} over its tokens)"


def _length(mask: Values) -> str:
    """How many tokens a response has, and how many of them the model's, if others spoke too."""
    own = int(mask.sum())
    return f"{len(mask)} tokens" if own == len(mask) else f"{len(mask)} tokens, {own} of them the model's"


def _gaps(record: StepRecord, sample: int | None = None) -> Values:
    """Gaps between the trainer's and the engine's log-probs, per token that counts in the loss and was computed."""
    old, engine, mask = (
        ragged.values if sample is None else ragged[sample]
        for ragged in (record.logprobs_old, record.logprobs_engine, record.loss_mask)
    )
    gaps: Values = np.abs(old - engine)[(mask == 1) & ~np.isnan(old) & ~np.isnan(engine)]
    return gaps


def _share(status: tuple[str, ...], wanted: Status) -> float:
    return status.count(wanted.value) / len(status) if status else 0.0


def _mean(values: Values) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _min(values: Values) -> float:
    return float(values.min()) if len(values) else float("nan")


def _max(values: Values) -> float:
    return float(values.max()) if len(values) else float("nan")
