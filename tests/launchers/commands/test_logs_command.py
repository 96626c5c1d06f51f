from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.command_stand_ins import ebbtide_with
from tests.support.histories import began, ended, write_history
from tests.support.waiting import DEADLINE_S

LOGS = ["attempts/1/trainer-0.log", "attempts/1/agent-0.log", "attempts/1/agent-1.log"]


def logs(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return ebbtide_with(folder / "bin", "logs", str(folder / "run"), *words, cwd=folder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_history(tmp_path / "run", [began(1, job=None), ended(1, "complete")], logs=LOGS)
    return tmp_path


def test_one_log_as_it_is(folder: Path) -> None:
    assert logs(folder).stdout == "one\ntwo of attempts/1/trainer-0.log\n"
    assert logs(folder, "--lines", "1").stdout == "two of attempts/1/trainer-0.log\n"


def test_several_logs_have_headings_apart_from_their_lines(folder: Path) -> None:
    done = logs(folder, "--role", "agent", "--lines", "1")
    assert done.stdout == "two of attempts/1/agent-0.log\ntwo of attempts/1/agent-1.log\n"
    assert [line.split("/")[-1] for line in done.stderr.splitlines()] == ["agent-0.log <==", "agent-1.log <=="]


def test_following_a_run_that_has_ended_ends(folder: Path) -> None:
    assert logs(folder, "--follow").stdout == "one\ntwo of attempts/1/trainer-0.log\n"


def test_following_goes_on_into_the_next_attempt(tmp_path: Path) -> None:
    """A stand-in for a run: this process lives, so the run does, until the ledger says that it is complete."""
    me = {"host": socket.gethostname(), "pid": os.getpid()}
    first = {**began(1, job=None, **me), "began": time.time()}
    directory = write_history(tmp_path / "run", [first], logs=["attempts/1/trainer-0.log"])
    command = ["-m", "launchers", "logs", str(directory.path), "--follow"]
    with subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True) as following:
        assert following.stdout is not None
        assert following.stdout.readline() == "one\n"
        second = {**first, "attempt": 2}
        write_history(tmp_path / "run", [first, ended(1, "failed"), second], logs=["attempts/2/trainer-0.log"])
        lines = [following.stdout.readline() for _ in range(3)]
        assert lines[-1] == "two of attempts/2/trainer-0.log\n"
        write_history(tmp_path / "run", [first, ended(1, "failed"), second, ended(2, "complete")])
        assert following.wait(DEADLINE_S) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--role", "trainers"), "--role: found trainers; wanted one of trainer, engine"),
        (("--attempt", "3"), "--attempt: found 3; wanted one of 1 to 1"),
        (("--rank", "9"), "--rank: found 9; wanted a rank that has a log of role trainer: choose from 0"),
        (("--role", "engine"), "--role: found engine; wanted one that has logs in this attempt: trainer, agent"),
    ],
)
def test_no_such_log(words: tuple[str, ...], message: str, folder: Path) -> None:
    done = logs(folder, *words)
    assert done.returncode == 2
    assert message in done.stderr
