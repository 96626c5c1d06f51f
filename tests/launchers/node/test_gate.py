"""The gate with real stores, sockets and probes: the nodes are threads of this process."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from core.config import load_run_file
from core.config.schema import RunConfig
from core.processes import keys
from core.processes.rendezvous import Address, Rendezvous
from core.run_dir.run_directory import RunDirectory
from launchers.attempts.failure import Failure
from launchers.node import gate
from launchers.node.gate import Gate
from launchers.node.pulse import Pulse
from launchers.node.seat import Seat
from tests.support.good_run import write_run

NAMES = ("n1", "n2", "n3")


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    return load_run_file(write_run(tmp_path), ["placement.num_nodes=3", "placement.start_timeout_s=20"])


def pass_gate(
    config: RunConfig, folder: Path, present: int = 3, scratch: Path | None = None
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
    leader = Gate(config, directory, Seat(1, 0, NAMES, "127.0.0.1", None, "key", scratch=scratch))
    unfit = leader.pass_as_leader(store, lambda: False)
    if unfit:
        done.set()
    for follower in followers:
        follower.join(30)
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


def test_nodes_without_room_are_named_with_the_numbers(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(gate.MIN_FREE_MIB, "/dev/shm", 10**9)
    unfit, _ = pass_gate(config, tmp_path / "run")
    assert [failure.name for failure in unfit] == list(NAMES)
    assert "/dev/shm: found " in unfit[0].cause
    assert "wanted at least 1000000000" in unfit[0].cause


def test_nodes_without_the_sites_scratch_are_named(config: RunConfig, tmp_path: Path) -> None:
    unfit, _ = pass_gate(config, tmp_path / "run", scratch=tmp_path / "scratch")
    assert [failure.name for failure in unfit] == list(NAMES)
    assert f"{tmp_path}/scratch: found No such file or directory; wanted a directory to write to" in unfit[0].cause
    (tmp_path / "scratch").mkdir()
    assert pass_gate(config, tmp_path / "another run", scratch=tmp_path / "scratch") == ([], ["open", "open"])


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
