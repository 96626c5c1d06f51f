"""What children hold in /dev/shm: noted while they live, removed when they are dead, by this agent or the next one."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.waiting import wait_until
from core.processes.children import Child, log_tail, stop_all
from launchers.node.holdings import NOTE, Holdings, remove_in_transit, remove_noted
from launchers.node.temporary import ALIVE, remove_what_dead_ones_left

HOLD = (
    "import mmap, sys, time; files = [open(name, 'w+b') for name in sys.argv[1:]]; "
    "[file.truncate(4096) for file in files]; maps = [mmap.mmap(file.fileno(), 4096) for file in files]; "
    "[file.close() for file in files]; print('up', flush=True); time.sleep(600)"
)


@pytest.fixture
def names() -> Iterator[list[Path]]:
    """Three files of /dev/shm that are not there yet."""
    mark = secrets.token_hex(6)
    paths = [Path(f"/dev/shm/ebbtide_test_{mark}_{number}") for number in range(3)]
    yield paths
    for path in paths:
        path.unlink(missing_ok=True)


def hold(log: Path, *paths: Path) -> Child:
    """A child that has these files mapped, and not open."""
    child = Child("test", [sys.executable, "-c", HOLD, *map(str, paths)], os.environ, log)
    assert wait_until(lambda: "up" in log_tail(log), 30)
    return child


def test_what_a_killed_child_alone_had_is_removed(tmp_path: Path, names: list[Path]) -> None:
    """Noted while it lived; what another child holds, too, and what nobody of us holds, stays."""
    own, shared, others = names
    others.touch()
    holdings = Holdings(tmp_path)
    first, second = hold(tmp_path / "1", own, shared), hold(tmp_path / "2", shared)
    try:
        holdings.look([first, second], interval_s=0.0)
        stop_all([first], 0.0)
        holdings.remove_of(first, [second])
        assert [path.exists() for path in names] == [False, True, True]
        holdings.look([second], interval_s=0.0)
        assert set(json.loads((tmp_path / NOTE).read_text())) == {str(shared)}
        holdings.remove_all()
        assert [path.exists() for path in names] == [False, False, True]
    finally:
        stop_all([first, second], 0.0)


def test_looks_are_rare(tmp_path: Path, names: list[Path]) -> None:
    holdings = Holdings(tmp_path)
    holdings.look([])
    child = hold(tmp_path / "log", names[0])
    try:
        holdings.look([child], interval_s=3600.0)
        assert not (tmp_path / NOTE).exists() or str(names[0]) not in (tmp_path / NOTE).read_text()
        holdings.look([child], interval_s=0.0)
        assert str(names[0]) in (tmp_path / NOTE).read_text()
    finally:
        stop_all([child], 0.0)


def dead_agent(base: Path, noted: dict[str, int], host: str) -> Path:
    """The folder of an agent that was killed."""
    folder = base / "ebbtide-dead"
    folder.mkdir()
    (folder / ALIVE).write_text(host)
    (folder / NOTE).write_text(json.dumps(noted))
    return folder


def test_the_next_agent_removes_what_a_dead_one_noted(tmp_path: Path, names: list[Path]) -> None:
    """A file that has the name by now and is another one stays; so does one that is not in /dev/shm."""
    dead, anew, elsewhere = names[0], names[1], tmp_path / "precious"
    for path in (dead, anew, elsewhere):
        path.touch()
    noted = {str(dead): dead.stat().st_ino, str(anew): anew.stat().st_ino + 1}
    noted[str(elsewhere)] = elsewhere.stat().st_ino
    folder = dead_agent(tmp_path, noted, os.uname().nodename)
    assert remove_what_dead_ones_left(tmp_path) == [dead, folder]
    assert [path.exists() for path in (dead, anew, elsewhere, folder)] == [False, True, True, False]


def test_what_an_engine_named_after_its_agents_folder_goes_without_a_note(tmp_path: Path) -> None:
    """Made after the last look of an agent that was killed, or is at its end; that of other agents' engines stays."""
    dead, ending = dead_agent(tmp_path, {}, os.uname().nodename), tmp_path / f"ebbtide-{secrets.token_hex(4)}"
    dead = dead.rename(tmp_path / f"ebbtide-{secrets.token_hex(4)}")
    lost, own, other = (Path(f"/dev/shm/sglang_loads_{name}-0123_89ab.shm") for name in (dead.name, ending.name, "x"))
    try:
        for path in (lost, own, other):
            path.touch()
        assert remove_what_dead_ones_left(tmp_path) == [lost, dead]
        Holdings(ending).remove_all()
        assert [path.exists() for path in (lost, own, other)] == [False, False, True]
    finally:
        for path in (lost, own, other):
            path.unlink(missing_ok=True)


def test_what_an_agent_of_another_node_has_is_left_to_that_node(tmp_path: Path) -> None:
    """A folder that several nodes see: locks may not reach from one to another."""
    folder = dead_agent(tmp_path, {}, "another-node")
    assert remove_what_dead_ones_left(tmp_path) == []
    assert folder.exists()


def test_a_note_that_was_cut_off_names_nothing(tmp_path: Path) -> None:
    (tmp_path / NOTE).write_text('{"/dev/shm/x": 1')
    assert remove_noted(tmp_path) == []


@pytest.mark.parametrize("name", ["torch_{pid}_{number}_0", "sgl_shm_msgq_data_{pid}_{number:08x}"])
def test_tensors_of_dead_senders_are_removed(name: str) -> None:
    """Named by torch or SGLang; those of a process that lives, and those from before, stay."""
    ended = subprocess.Popen(["true"])
    ended.wait(30)
    number, pids = secrets.randbelow(10**9), (ended.pid, os.getpid(), "x")
    lost, sent, other = (Path("/dev/shm", name.format(pid=pid, number=number)) for pid in pids)
    before = time.time() - 1.0
    try:
        for path in (lost, sent, other):
            path.touch()
        assert remove_in_transit(since=time.time() + 60.0) == []
        assert lost in remove_in_transit(since=before)
        assert [path.exists() for path in (lost, sent, other)] == [False, True, True]
    finally:
        for path in (lost, sent, other):
            path.unlink(missing_ok=True)
