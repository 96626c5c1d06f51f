"""The judge of the stress program notices what it is there for; seeds reach every fault. Nothing is run here."""

from __future__ import annotations

import fcntl
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.stress.case import KINDS, PHASES, TARGETS, Case, Fault, Layout, Moment, case_of
from tests.stress.judge import ENDS, End, ends_of, judge_files, judge_ledger, judge_losses, judge_lost, judge_said

LOST = {
    "how": "node_failure",
    "failed_nodes": ["n2"],
    "cause": "node n2 failed in update of step 1: not heard of for 8 s",
}
COMPLETE = {"how": "complete", "cause": "", "failed_nodes": []}
CASE = Case(1, "slurm", Layout("two nodes", nodes=2), 1, ((Moment(0.0), Fault("lose", node=1)),), False)


def ledger(folder: Path, *ends: dict[str, Any]) -> Path:
    """A run directory whose attempts ended so."""
    lines = [json.dumps({"attempt": number, **end}) + "\n" for number, end in enumerate(ends, 1)]
    (folder / "ledger.jsonl").write_text("".join(lines))
    return folder


def test_seeds_are_the_same_for_ever_and_reach_every_fault() -> None:
    cases = [case_of(seed, place) for seed in range(600) for place in (None, "defaults")]
    assert cases == [case_of(seed, place) for seed in range(600) for place in (None, "defaults")]
    faults = [fault for case in cases for _, fault in case.faults]
    for place, kinds in KINDS.items():
        here = [fault for case in cases if case.place == place for _, fault in case.faults]
        assert {fault.kind for fault in here} == set(kinds)
        assert {fault.target for fault in here if fault.kind == "kill"} == set(TARGETS[place])
    assert {moment.phase for case in cases for moment, _ in case.faults} == {None, *PHASES}
    for fault in faults:
        assert fault.kind in ENDS or f"{fault.kind} {fault.target}" in ENDS, fault


def test_a_run_as_it_has_to_be(tmp_path: Path) -> None:
    assert list(judge_ledger(CASE, ledger(tmp_path, LOST, COMPLETE), ["n2"])) == []


@pytest.mark.parametrize(
    ("ends", "guilty", "said"),
    [
        ([], ["n2"], "the ledger has no attempt"),
        ([LOST, COMPLETE], ["n1"], "leaves out ['n2'], who did nothing"),
        ([{}, COMPLETE], ["n2"], "attempt 1 has no end in the ledger"),
        ([LOST], ["n2"], "the last attempt is node_failure"),
        (
            [{"how": "failed", "cause": "boom"}, COMPLETE],
            [],
            "ended as failed (boom); expected ['lost', 'node_failure']",
        ),
        ([LOST | {"cause": "reset by peer"}, COMPLETE], ["n2"], "ended as node_failure by 'reset by peer'"),
        ([COMPLETE, COMPLETE], [], "attempt 1 is complete, and another one follows"),
    ],
)
def test_an_end_that_is_wrong(ends: list[dict[str, Any]], guilty: list[str], said: str, tmp_path: Path) -> None:
    found = list(judge_ledger(CASE, ledger(tmp_path, *ends), guilty))
    assert len(found) == 1
    assert said in found[0]


def test_what_is_left_in_a_run_directory(tmp_path: Path) -> None:
    attempt = tmp_path / "attempts" / "2"
    attempt.mkdir(parents=True)
    assert list(judge_files(tmp_path)) == []
    (attempt / "key").touch()
    (attempt / ".failure.json.12.ab").touch()
    with (tmp_path / ".lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert list(judge_files(tmp_path)) == [
            "left in attempts/2: ['key']",
            "left unfinished: ['attempts/2/.failure.json.12.ab']",
            "the lock is held",
        ]


def test_steps_that_an_end_of_a_run_with_default_checkpoints_lost() -> None:
    defaults = case_of(0, "defaults")
    fine = [End("interrupt, 0.1 s after the start", 4, 0, 0.0, 0.1), End("kill rank, 0.2 s", 4, 3, 1.9, 0.1)]
    assert list(judge_lost(defaults, fine)) == []
    assert list(judge_lost(defaults, [fine[0]._replace(lost=1), fine[1]._replace(span_s=2.1)])) == [
        "interrupt, 0.1 s after the start lost 1 steps; expected none",
        "kill rank, 0.2 s lost 3 steps of 2.1 s, though a save takes 0.10 s and 0.00 s to be written",
    ]
    assert list(judge_lost(defaults, [End("kill agent, 0.3 s", 1, 1, 0.0, 0.0)])) == []
    assert list(judge_lost(CASE, [fine[1]._replace(span_s=2.1)])) == []


def test_losses_are_compared_bit_for_bit(tmp_path: Path) -> None:
    lines = [{"event": "step", "step": step, "metrics": {"train/loss": 0.1 * step}} for step in range(3)]
    (tmp_path / "progress.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert list(judge_losses(tmp_path, {step: 0.1 * step for step in range(3)})) == []
    assert len(list(judge_losses(tmp_path, {0: 0.0, 1: 0.1, 2: 0.2 + 1e-16 * 2}))) == 1
    assert len(list(judge_losses(tmp_path, {step: 0.1 * step for step in range(4)}))) == 1


def test_an_end_has_to_say_what_to_do() -> None:
    assert list(judge_said("Go on with: ebbtide resume runs/x", "end 1")) == []
    assert len(list(judge_said("oh", "end 1"))) == 1
    assert len(list(judge_said("Traceback …\nlaunchers/cli.py …\nlog: x", "end 1"))) == 1


def test_what_may_come_of_a_fault_is_looked_up_by_kind_and_target() -> None:
    assert set(ends_of(Fault("kill", "command"))) == {"lost", "failed"}
    assert set(ends_of(replace(CASE.faults[0][1], kind="frozen"))) == set()
