"""Checkpoints, sinks of metrics, and what the program's name says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.doors import ROWS
from launchers.moving_in.draft import Draft
from launchers.moving_in.flags import Flags, whole
from launchers.moving_in.rules.rollout import ONE_STEP_AHEAD

WANDB = {"wandb_project": "project", "wandb_group": "group", "wandb_team": "entity", "wandb_mode": "mode"}
QAT = "OPEN_TRAINING_INT4_FAKE_QAT_FLAG"


def checkpoint(flags: Flags, draft: Draft) -> None:
    """The section checkpoint."""
    interval, model = flags.take("save_interval"), flags.take("save_hf")
    if interval:
        draft.put("checkpoint.interval", max(0, whole(interval.text, 0)), interval)
    draft.default("checkpoint.every", "auto", "slime saves by steps only; null: so here")
    draft.default("checkpoint.keep", 2, "slime keeps every one")
    if model:
        steps = whole(interval.text, 0) if interval else 0
        draft.put("checkpoint.save_hf", f"every {steps}" if steps > 0 else "end", model, "into RUN_DIR/hf_steps and hf")
    else:
        draft.default("checkpoint.save_hf", "end", "slime writes none without --save-hf")


def logging(flags: Flags, draft: Draft) -> None:
    """The section logging."""
    used = flags.take("use_wandb")
    options = {ours: flag.text for name, ours in WANDB.items() if (flag := flags.take(name)) is not None}
    sinks: list[Any] = ["tensorboard"]
    if used:
        sinks.append({"name": "wandb", "options": options} if options else "wandb")
        draft.put("logging.sinks", sinks, used)
        return
    flag = flags.take("use_tensorboard")
    draft.put(
        "logging.sinks", sinks, flag, "" if flag else "slime logs nowhere without --use-wandb or --use-tensorboard"
    )


def program(name: str, draft: Draft) -> None:
    """`train_async.py`: the samples of a step are made while the step before is learnt from."""
    if name == "train_async.py" and draft.value("rollout.generate", "") == ROWS:
        draft.skip(name, "the rows have the answers, and nothing is sampled")
    elif name == "train_async.py" and not draft.losses("task"):
        draft.lose(name, "a step's samples are made before it is learnt from", ONE_STEP_AHEAD, "speed")


def variables(said: Mapping[str, str], draft: Draft) -> None:
    """A variable of the job by which slime learns otherwise: the trainer's passes round experts to int4."""
    if said.get(QAT, "0") == "1":
        why = "the trainer's passes do not round weights to int4"
        do = "leave it out: engines have the trainer's bfloat16 weights, so no rounding is there to be learnt"
        draft.lose(QAT, why, do, "result")
