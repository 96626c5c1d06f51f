"""A replayed step beside what the run has recorded, and a single sample token by token."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from common.mistake import Wrong
from core.trajectory import StepRecord
from launchers.show.plain_text import visible

OF_THE_UPDATE = "train/"  # metrics of this name are computed again; the others are times, or of the rollout
NOT_OF_IT = ("train/lr", "train/tokens_seen")  # of the schedule, and of all steps so far


def compared(recorded: StepRecord, replayed: StepRecord) -> Group:
    """The metrics of the update: as the run recorded them, and as the replay has them."""
    table = Table(box=SIMPLE_HEAD)
    table.add_column("")
    for heading in ("recorded", "replayed", "difference"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name in metric_names(recorded, replayed):
        before, now = recorded.metrics[name], replayed.metrics[name]
        table.add_row(name.removeprefix(OF_THE_UPDATE), f"{before:.9g}", f"{now:.9g}", f"{now - before:+.3g}")
    return Group(_verdict(recorded, replayed), table)


def metric_names(recorded: StepRecord, replayed: StepRecord) -> list[str]:
    """What both have of the update."""
    return [
        name
        for name in recorded.metrics
        if name.startswith(OF_THE_UPDATE) and name in replayed.metrics and name not in NOT_OF_IT
    ]


def is_equal(recorded: StepRecord, replayed: StepRecord) -> bool:
    """Whether metrics of the update, advantages and old log-probs are equal to the last bit."""
    metrics = all(recorded.metrics[name] == replayed.metrics[name] for name in metric_names(recorded, replayed))
    same_old = np.array_equal(recorded.logprobs_old.values, replayed.logprobs_old.values, equal_nan=True)
    return metrics and same_old and np.array_equal(recorded.advantage, replayed.advantage)


def sample_place(record: StepRecord, wanted: str) -> int:
    """The place of the sample GROUP.INDEX in its step.

    Raises:
        Wrong: it has another form, or there is none such.
    """
    group, _, index = wanted.partition(".")
    for place in range(len(record)):
        if (str(record.group[place]), str(record.index[place])) == (group, index):
            return place
    last = f"{record.group[-1]}.{record.index[-1]}"
    remedy = "`ebbtide inspect` names group and sample of each"
    raise Wrong(f"--sample {wanted}", f"GROUP.INDEX, one of {record.group[0]}.{record.index[0]} to {last}", remedy)


def tokens_table(record: StepRecord, place: int, decode: Callable[[Sequence[int]], str]) -> Group:
    """A sample's response, a line per token: log-probs, advantage, and the ratio of the policy to the old one."""
    mask, old = record.loss_mask[place], record.logprobs_old[place]
    policy = old if record.logprobs_policy is None else record.logprobs_policy[place]
    given = None if record.token_advantage is None else record.token_advantage[place]
    advantages = np.full(len(mask), record.advantage[place]) if given is None else given
    columns: dict[str, NDArray[np.float32]] = {
        "engine": record.logprobs_engine[place],
        "old": old,
        "policy": policy,
        **({} if record.logprobs_ref is None else {"reference": record.logprobs_ref[place]}),
        "advantage": advantages,
        "ratio": np.exp(policy - old),
    }
    table = Table(box=SIMPLE_HEAD)
    table.add_column("", justify="right")
    table.add_column("token", no_wrap=True)
    for heading in columns:
        table.add_column(heading, justify="right", no_wrap=True)
    for number, token in enumerate(record.response_tokens[place].tolist()):
        cells = [f"{values[number]:.6g}" for values in columns.values()]
        style = "" if mask[number] else "dim"
        table.add_row(str(number), Text(visible(repr(decode([token])))), *cells, style=style)
    return Group(_title(record, place), table)


def _title(record: StepRecord, place: int) -> Text:
    reward = "none" if np.isnan(record.reward[place]) else f"{record.reward[place]:.4g}"
    name = f"{record.group[place]}.{record.index[place]}"
    return Text(f"step {record.step}, sample {name}, row {record.row[place]}, reward {reward}")


def _verdict(recorded: StepRecord, replayed: StepRecord) -> Text:
    word = "equal to the last bit" if is_equal(recorded, replayed) else "not equal"
    return Text(f"step {recorded.step}, recorded and replayed: {word}")
