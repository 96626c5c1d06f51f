"""The gate with real stores, sockets and probes: the nodes are threads of this process."""

from __future__ import annotations

import errno
import json
import socket
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from common.waiting import wait_until
from core.config import load_run_file
from core.config.schema import RunConfig
from core.processes import keys
from core.processes.rendezvous import Address, Rendezvous
from core.run_dir.run_directory import RunDirectory
from hpc.node.health import NodeReport
from launchers.attempts.failure import Failure
from launchers.attempts.judgement import outcome_of
from launchers.node import gate
from launchers.node.gate import Gate
from launchers.node.pulse import Pulse
from launchers.node.seat import Seat
from tests.support.good_run import write_run
from tests.support.waiting import DEADLINE_S

NAMES = ("n1", "n2", "n3")


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    return load_run_file(write_run(tmp_path), ["placement.num_nodes=3", f"placement.start_timeout_s={DEADLINE_S}"])


def pass_gate(
    config: RunConfig, folder: Path, present: int = 3, scratch: Path | None = None, job: str = ""
) -> tuple[list[Failure], list[str | None]]:
    """The leader's judgement, and what each follower was told."""
    directory = RunDirectory(folder)
    directory.attempt(1).mkdir(parents=True)
    listener = socket.create_server(("127.0.0.1", 0))
    store = Rendezvous(Address(*listener.getsockname()), 1, "key", listener=listener)
    done = threading.Event()
    told: list[str | None] = []

    def follow(node: int) -> None:
        pulse = Pulse(Rendezvous(store.address, 1, "key"), node, 3, gate.WATCHED, 30)
        pulse.start()
        seat = Seat(1, node, NAMES, "127.0.0.1", store.address, "key", scratch=scratch)
        Gate(config, directory, seat).pass_as_follower(pulse, done.is_set)
        told.append(pulse.value(keys.GATE))
        pulse.stop()

    followers = [threading.Thread(target=follow, args=(node,)) for node in range(1, present)]
    for follower in followers:
        follower.start()
    leader = Gate(config, directory, Seat(1, 0, NAMES, "127.0.0.1", None, "key", scratch=scratch, job=job))
    unfit = leader.pass_as_leader(store, lambda: False)
    if unfit:
        done.set()
    for follower in followers:
        follower.join(DEADLINE_S)
    return unfit, told


def test_it_opens_when_all_are_fit(config: RunConfig, tmp_path: Path) -> None:
    assert pass_gate(config, tmp_path / "run") == ([], ["open", "open"])


def test_a_node_that_does_not_report_is_named(config: RunConfig, tmp_path: Path) -> None:
    short = config.model_copy(update={"placement": config.placement.model_copy(update={"start_timeout_s": 4.0})})
    unfit, told = pass_gate(short, tmp_path / "run", present=2)
    assert [(failure.role, failure.name, failure.cause) for failure in unfit] == [
        ("node", "n3", "its agent did not report within 4 s")
    ]
    assert told == [None]


def on_node(node: int, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[NodeReport], NodeReport]) -> None:
    """Have the probes of one node, or of all (-1), find something else."""
    real = Gate._report

    def report(self: Gate, asked: str, listening: tuple[str, int]) -> str:
        entry = json.loads(real(self, asked, listening))
        if node in (-1, self._seat.node):
            entry["report"] = spoil(NodeReport.from_json(entry["report"])).to_json()
        return json.dumps(entry)

    monkeypatch.setattr(Gate, "_report", report)


def test_a_node_without_room_is_named_with_the_numbers(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_node(1, monkeypatch, lambda report: replace(report, free_mib={**report.free_mib, "/dev/shm": 7}))
    unfit, _ = pass_gate(config, tmp_path / "run")
    assert [(failure.role, failure.name) for failure in unfit] == [("node", "n2")]
    assert "/dev/shm: found 7 MiB free; wanted at least 32" in unfit[0].cause


def test_what_all_nodes_report_alike_is_no_nodes_fault(config: RunConfig, tmp_path: Path) -> None:
    """The site names a scratch that no node has."""
    unfit, told = pass_gate(config, tmp_path / "run", scratch=tmp_path / "scratch")
    assert [failure.role for failure in unfit] == ["run"]
    assert outcome_of(unfit[0]).failed_nodes == ()
    assert "all nodes (n1, n2, n3) report: " in unfit[0].cause
    assert f"{tmp_path}/scratch: found No such file or directory; wanted a directory to write to" in unfit[0].cause
    assert "leave the node out" not in unfit[0].cause
    assert told == [None, None]
    (tmp_path / "scratch").mkdir()
    assert pass_gate(config, tmp_path / "another run", scratch=tmp_path / "scratch") == ([], ["open", "open"])


def test_a_full_run_directory_is_waited_for_and_all_are_asked_again(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "LOOK_AGAIN_S", 0.05)
    monkeypatch.setitem(gate.MIN_FREE_MIB, "run", 10**9)
    waits = RunDirectory(tmp_path / "run").attempt(1) / "waits"

    def make_room() -> None:
        assert wait_until(waits.exists, DEADLINE_S)
        assert f"waiting for what all nodes report: {tmp_path}/run: found " in waits.read_text()
        monkeypatch.setitem(gate.MIN_FREE_MIB, "run", 1)

    cleaner = threading.Thread(target=make_room)
    cleaner.start()
    assert pass_gate(config, tmp_path / "run", job="7") == ([], ["open", "open"])
    cleaner.join()
    assert not waits.exists()


def test_a_run_directory_that_stays_full_ends_the_run_and_names_no_node(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "LOOK_AGAIN_S", 0.05)
    monkeypatch.setitem(gate.MIN_FREE_MIB, "run", 10**9)
    short = config.model_copy(update={"placement": config.placement.model_copy(update={"start_timeout_s": 2.0})})
    unfit, told = pass_gate(short, tmp_path / "run", job="7")
    assert [failure.role for failure in unfit] == ["run"]
    assert unfit[0].cause.endswith("remove what is no longer needed there; waited 2 s for it to go")
    assert told == [None, None]


def test_a_leader_that_cannot_write_waits_likewise(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even the canary finds room."""
    monkeypatch.setattr(gate, "LOOK_AGAIN_S", 0.05)
    real, tries = gate.write_canary, []

    def write(path: Path) -> str:
        tries.append(path)
        if len(tries) == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path)

    monkeypatch.setattr(gate, "write_canary", write)
    assert pass_gate(config, tmp_path / "run", job="7") == ([], ["open", "open"])
    assert len(tries) == 2


@pytest.mark.parametrize("blocked", [0, 1, 2])
def test_a_node_that_its_neighbour_does_not_reach_is_named(
    blocked: int, config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real: Callable[[int, list[tuple[str, int]]], str] = gate._reach_next

    def reach(node: int, listeners: list[tuple[str, int]]) -> str:
        return "timed out" if (node + 1) % 3 == blocked else real(node, listeners)

    monkeypatch.setattr(gate, "_reach_next", reach)
    unfit, _ = pass_gate(config, tmp_path / "run")
    neighbour = NAMES[(blocked - 1) % 3]
    assert [(f.name, f.cause) for f in unfit] == [(NAMES[blocked], f"{neighbour} does not reach it: timed out")]


def test_where_no_node_reaches_the_next_one_no_node_is_named(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "_reach_next", lambda node, listeners: "timed out")
    unfit, _ = pass_gate(config, tmp_path / "run")
    assert [failure.role for failure in unfit] == ["run"]
    assert "no node reaches the next one: n1 does not reach it: timed out" in unfit[0].cause
