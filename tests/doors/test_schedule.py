"""The door `placement.schedule`: a user's file outside the package turns the loop."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from common.mistake import Wrong
from core.config.sections.placement import PlacementConfig
from core.doors import SCHEDULE
from core.loop.parts import overlaps
from core.trajectory import step_path
from launchers.rank.rank_run import as_bool
from tests.support.door_files import example, said_of, write_file
from tests.support.loop_fakes import Fakes
from tests.support.tiny_runs import ebbtide, events, write_run

TWICE = '''
"""Evaluates before every step, and learns from each rollout more than once."""
from dataclasses import replace

from ebbtide import Parts, make_batch, weight_version


def run(parts: Parts, updates: int = 1) -> bool:
    for step in range(parts.state.next_step, parts.num_steps):
        version = weight_version(step)
        with parts.phase("sync", step):
            parts.sync.push(version)
        with parts.phase("eval", step):
            parts.journal.evaluated(step, parts.evaluation.run(step, version))
        with parts.phase("rollout", step):
            request = parts.request(parts.state, version)
            made = parts.rollout.generate(request)
        with parts.phase("score", step):
            batch = make_batch(parts.rollout.settle(made), parts.advantages)
        with parts.phase("update", step):
            result = parts.trainer.update(batch.train_samples())
            for _ in range(updates - 1):
                parts.trainer.update(replace(batch, on_policy=False).train_samples())
        parts.journal.stepped(step, batch, result, parts.phase.take_times())
        parts.state = parts.state.after_step(len(request.prompts))
    return True
'''
OVERLAPPING = "def run(parts):\n    return True\n\n\nrun.overlaps = {}\n"
RIGHT = OVERLAPPING.format('("rollout", "update")')
CLASS = """
class run:
    overlaps = ["rollout", "update"]

    def __call__(self, parts):
        return True
"""
KEY = "placement.schedule"
OVERLAPS = "DIR/mine.py:run, which overlaps rollout and update"


def test_it_is_called_with_the_parts_and_its_options(tmp_path: Path) -> None:
    """The second update on a rollout learns from samples of older weights: old log-probs are then the engine's."""
    schedule = SCHEDULE.build(f"{write_file(tmp_path, TWICE)}:run", {"updates": 2})
    fakes = Fakes()
    assert schedule(fakes.parts) is True
    before = ["push step0", "evaluate 0 step0", "evaluated 0", "generate train/0 step0", "settle"]
    assert fakes.calls[:8] == [*before, "update 1", "update 1", "stepped 0"]
    assert fakes.calls[8:9] == ["push step1"]
    first, second = fakes.updated[:2]
    assert first[0].logprobs_old is None
    assert second[0].logprobs_old == second[0].logprobs_engine == [-1.0]


@pytest.mark.run
def test_one_step_ahead_as_the_page_has_it(tmp_path: Path) -> None:
    """A whole run: from the second step on, samples are of the weights from before the last update."""
    run_dir = run(tmp_path, example("Schedule"), offload="off")
    assert [event["step"] for event in events(run_dir, "step")] == [0, 1, 2]
    assert [versions(run_dir, step) for step in range(3)] == [{"step0"}, {"step0"}, {"step1"}]
    first, *others = [event["metrics"]["train/ppo_kl"] for event in events(run_dir, "step")]
    assert abs(first) < 1e-6
    assert all(abs(later) > 1e-5 for later in others), "the policy has moved since the samples were made"
    for step in (1, 2):
        np.testing.assert_array_equal(read(run_dir, step, "logprobs_old"), read(run_dir, step, "logprobs_engine"))
    names = [(event["phase"], event["step"]) for event in events(run_dir, "phase") if event["step"] == 1]
    assert [name for name, _ in names] == ["sync", "score", "rollout", "update", "rollout", "save"]


def test_a_schedule_that_returns_no_bool_is_told_so(tmp_path: Path) -> None:
    path = write_file(tmp_path, "def run(parts):\n    pass\n", "schedule.py")
    schedule = SCHEDULE.build(f"{path}:run")
    with pytest.raises(Wrong) as caught:
        as_bool(schedule(Fakes().parts), schedule)
    assert f"found None from run of {path} (placement.schedule); wanted bool" in str(caught.value)
    assert [as_bool(value, schedule) for value in (True, False)] == [True, False]


BAD: dict[str, tuple[str, Mapping[str, str], str]] = {
    "unknown name": (
        RIGHT,
        {"schedule": "in_turn"},
        "'in_turn'; wanted one of in_turns, evaluate, replay, profile, or module.py:function",
    ),
    "no such function": (RIGHT, {"schedule": "mine.py:rum"}, "no rum in DIR/mine.py; wanted a function defined"),
    "takes nothing": (
        "def run():\n    return True\n",
        {},
        "run of DIR/mine.py with (); wanted a function (parts) -> bool:",
    ),
    "needs more": ("def run(parts, every):\n    return True\n", {}, "no every; wanted all that DIR/mine.py:run needs"),
    "unknown option": (
        RIGHT,
        {"schedule_options": "{every: 2}"},
        "the option every; wanted no options, as DIR/mine.py:run",
    ),
    "class without a call": ("class run:\n    pass\n", {}, "the class run of DIR/mine.py without __call__; wanted a"),
    "unknown phase": (
        OVERLAPPING.format("('rolout',)"),
        {},
        "overlaps = ('rolout',) of DIR/mine.py:run; wanted",
    ),
    "offload on": (
        RIGHT,
        {"offload": "on"},
        f"{OVERLAPS}; wanted trainers and engines that do not take turns",
    ),
    "perhaps a GPU": (RIGHT, {"device": "auto"}, OVERLAPS),
    "class that overlaps": (CLASS, {"device": "auto"}, OVERLAPS),
}


@pytest.mark.parametrize(("text", "settings", "said"), BAD.values(), ids=BAD)
def test_a_bad_one_is_told_on_the_login_node(tmp_path: Path, text: str, settings: Mapping[str, str], said: str) -> None:
    wanted = {"schedule": "mine.py:run", **settings}
    found = said_of(tmp_path, text, *(f"placement.{key}={value}" for key, value in wanted.items()))
    assert said in found
    assert KEY in found


@pytest.mark.parametrize(
    "settings",
    [{"engines": "own_gpus"}, {"offload": "off"}, {"device": "cpu"}],
    ids=["engines with GPUs of their own", "nobody leaves", "CPUs"],
)
def test_phases_overlap_where_nobody_takes_turns(tmp_path: Path, settings: Mapping[str, str]) -> None:
    wanted = {"schedule": "mine.py:run", **settings}
    assert said_of(tmp_path, RIGHT, *(f"placement.{key}={value}" for key, value in wanted.items())) == ""


def test_the_built_in_one_overlaps_nothing() -> None:
    assert overlaps(SCHEDULE.build(PlacementConfig().schedule)) == ()


def test_what_overlaps_can_be_read_through_options(tmp_path: Path) -> None:
    text = 'def run(parts, every=1):\n    return True\n\n\nrun.overlaps = ("rollout", "update")\n'
    assert overlaps(SCHEDULE.build(f"{write_file(tmp_path, text)}:run", {"every": 2})) == ("rollout", "update")


def run(folder: Path, text: str, **placement: Any) -> Path:
    """A whole run of three steps by this schedule; its run directory."""
    write_file(folder, text, "schedule.py")
    run_file = write_run(
        folder,
        rollout={"num_rollout": 3},
        train={"global_batch_size": 16, "num_steps_per_rollout": 1, "lr": 1e-2},
        placement={"device": "cpu", "schedule": "schedule.py:run", **placement},
    )
    done = ebbtide("run", str(run_file), "--run-dir", str(folder / "out"))
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "out"


def read(run_dir: Path, step: int, name: str) -> Any:
    with h5py.File(step_path(run_dir, step)) as file:
        return file[name][...]


def versions(run_dir: Path, step: int) -> set[str]:
    return {text.decode() for text in read(run_dir, step, "weight_version")}
