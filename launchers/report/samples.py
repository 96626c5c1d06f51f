"""The samples that a page shows: the best, the worst and the failed of some steps, within a budget of bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import escape

from common.redaction import redacted_text
from core.run_dir.run_directory import RunDirectory
from core.samples import Status
from core.trajectory import StepRecord, list_steps, read_step, step_path
from launchers.report.read_apart import Unreadable, read_apart
from launchers.show.plain_text import visible
from launchers.show.samples import step_ranges

MOST_STEPS = 12
READ_TIMEOUT_S = 60.0  # for a step
EACH = {"best": 2, "worst": 2, "failed": 2, "truncated": 1, "given": 2}
MOST_BYTES = 900_000  # of all texts of a report, as they stand in the page
MOST_TURNS = 60
CUT = "\n[… {} characters left out …]\n"


@dataclass(frozen=True)
class Turn:
    """Adjacent tokens of a response by one author, and the engine's mean log-prob of them."""

    author: str
    num_tokens: int
    logprob: float | None


@dataclass(frozen=True)
class ShownSample:
    """A sample as the page shows it. `kinds`: why it was chosen."""

    step: int
    kinds: tuple[str, ...]
    facts: dict[str, str]
    prompt: str
    response: str
    failure: str
    reward: str
    group_rewards: tuple[str, ...]
    turns: tuple[Turn, ...]


def choose_samples(
    directory: RunDirectory, steps_done: Sequence[int], share: float, notes: list[str]
) -> list[ShownSample]:
    """Samples of some steps, the latest step first.

    Args:
        steps_done: the steps that the run says it has done; one without a file goes into `notes`.
        share: of the budgets of a report, for a report of several runs.
    """
    try:
        stored = list_steps(directory.path)
    except OSError as error:
        notes.append(f"steps/ cannot be read: {error.strerror}.")
        return []
    if missing := sorted(set(steps_done) - set(stored)):
        notes.append(f"No step file for steps {step_ranges(missing)}, of {len(steps_done)} that were done.")
    steps = _spread(stored, max(2, int(MOST_STEPS * share)))
    found: list[ShownSample] = []
    for step in reversed(steps):
        read = partial(_samples_of, step_path(directory.path, step), int(MOST_BYTES * share / len(steps)))
        try:
            found += [_from_plain(fields) for fields in read_apart(read, READ_TIMEOUT_S)]
        except Unreadable as error:
            notes.append(f"The samples of step {step} cannot be read: {error}")
    return found


def _samples_of(path: Path, most_bytes: int) -> list[dict[str, Any]]:
    """The chosen samples of a step file, as plain values."""
    record = read_step(path)
    chosen = _chosen(record)
    budget = most_bytes // max(1, len(chosen))
    return [asdict(_shown(record, index, kinds, budget)) for index, kinds in chosen.items()]


def _from_plain(fields: dict[str, Any]) -> ShownSample:
    return ShownSample(**{**fields, "turns": tuple(Turn(**turn) for turn in fields["turns"])})


def _spread(steps: Sequence[int], number: int) -> list[int]:
    """The first, the last, and others at equal distances."""
    if len(steps) <= number:
        return list(steps)
    return sorted({steps[round(place * (len(steps) - 1) / (number - 1))] for place in range(number)})


def _chosen(record: StepRecord) -> dict[int, tuple[str, ...]]:
    """Index -> kinds, in the order in which they are shown."""
    scored = np.flatnonzero(np.isfinite(record.reward))
    ranked = scored[np.argsort(record.reward[scored], kind="stable")].tolist()
    status = record.status
    unscored = [i for i in range(len(record)) if record.failure[i] or not np.isfinite(record.reward[i])]
    given = [i for i in unscored if status[i] == Status.GIVEN]
    failed = [i for i in unscored if status[i] != Status.GIVEN]
    truncated = [i for i in reversed(ranked) if status[i] == Status.TRUNCATED]
    highest = record.reward[ranked[-1]] if ranked else 0.0
    worst = [i for i in ranked[: -EACH["best"]] if record.reward[i] < highest]
    lists = {"best": ranked[::-1], "worst": worst, "failed": failed, "truncated": truncated, "given": given}
    kinds: dict[int, tuple[str, ...]] = {}
    for kind, indices in lists.items():
        for index in indices[: EACH[kind]]:
            kinds[index] = (*kinds.get(index, ()), kind)
    return {
        index: (*own, "truncated") if status[index] == Status.TRUNCATED and "truncated" not in own else own
        for index, own in kinds.items()
    }


def _shown(record: StepRecord, i: int, kinds: tuple[str, ...], budget: int) -> ShownSample:
    same = np.flatnonzero(record.group == record.group[i]).tolist()
    return ShownSample(
        step=record.step,
        kinds=kinds,
        facts=_facts(record, i),
        prompt=fitted(visible(record.prompt_text[i]), budget // 3),
        response=fitted(visible(record.response_text[i]), budget - budget // 3),
        failure=fitted(redacted_text(visible(record.failure[i])), 2000),
        reward=_number(record.reward[i]),
        group_rewards=tuple(_number(record.reward[other]) for other in same[:64]),
        turns=_first_turns(list(_turns(record, i))),
    )


def _facts(record: StepRecord, i: int) -> dict[str, str]:
    engine, old = record.logprobs_engine[i], record.logprobs_old[i]
    gaps = np.abs(old - engine)[np.isfinite(old) & np.isfinite(engine)]
    facts = {
        "group": f"{record.group[i]}, sample {record.index[i]}",
        "data row": str(record.row[i]),
        "label": visible(record.label[i][:500]),
        "advantage": f"{record.advantage[i]:+.3f}",
        "status": visible(record.status[i]),
        "tokens": f"{len(record.response_tokens[i])} after {len(record.prompt_tokens[i])} of the prompt",
        "log-prob": f"mean {engine.mean():.3f}, least {engine.min():.2f}" if len(engine) else "",
        "gap": f"mean {gaps.mean():.1e}, largest {gaps.max():.1e}" if len(gaps) else "",
        "engine": visible(record.engine[i]),
        "weights": visible(record.weight_version[i]),
        "seed": str(record.seed[i]) if record.seed is not None else "",
    }
    return {name: value for name, value in facts.items() if value}


def _first_turns(turns: Sequence[Turn]) -> tuple[Turn, ...]:
    """Not more than a reader looks at; the others together are the last one."""
    if len(turns) <= MOST_TURNS:
        return tuple(turns)
    others = turns[MOST_TURNS:]
    return (*turns[:MOST_TURNS], Turn(f"{len(others)} more", sum(turn.num_tokens for turn in others), None))


def _turns(record: StepRecord, i: int) -> Iterator[Turn]:
    """Who said what of a response that is not the model's alone; nothing where it is."""
    mask, logprobs = record.loss_mask[i].tolist(), record.logprobs_engine[i]
    if len(set(mask)) < 2:
        return
    start = 0
    for own, tokens in groupby(mask):
        number = len(list(tokens))
        mean = float(logprobs[start : start + number].mean()) if own else None
        yield Turn("model" if own else "environment", number, mean)
        start += number


def fitted(text: str, most_bytes: int) -> str:
    """The text, with its middle left out where it would take more bytes in the page."""
    if len(text) * 6 <= most_bytes or _size(text) <= most_bytes:
        return text
    keep = min(len(text), most_bytes)
    while keep > 2 and _size(text[: keep - keep // 3]) + _size(text[len(text) - keep // 3 :]) > most_bytes:
        keep = keep * 4 // 5
    return text[: keep - keep // 3] + CUT.format(len(text) - keep) + text[len(text) - keep // 3 :]


def _size(text: str) -> int:
    return len(str(escape(text)).encode("utf-8", "replace"))


def _number(value: float) -> str:
    return f"{value:.4g}" if np.isfinite(value) else "none"
