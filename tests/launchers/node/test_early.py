"""Signals from the first line on, in processes of their own."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from tests.support.waiting import COMMAND_S

SENDS = "import os, signal; from launchers.node import early; early.{mode}(); os.kill(os.getpid(), {number}); "
TELLS = "print(early.take(), early.take())"


def run(mode: str, number: int) -> subprocess.CompletedProcess[str]:
    code = SENDS.format(mode=mode, number=number) + TELLS
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=COMMAND_S)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_before_anything_has_begun_a_process_ends_on_the_spot(number: signal.Signals) -> None:
    done = run("leave_at_once", number)
    assert (done.returncode, done.stdout) == (128 + number, "")
    assert done.stderr == f"ended by {number.name} before anything had begun\n"


@pytest.mark.parametrize(
    ("mode", "number"),
    [("leave_at_once", signal.SIGUSR2), *(("note", n) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2))],
)
def test_what_is_noted_is_taken_once(mode: str, number: int) -> None:
    done = run(mode, number)
    assert (done.returncode, done.stdout) == (0, f"({int(number)},) ()\n"), done.stderr


@pytest.mark.parametrize("module", ["launchers.node.slurm_task", "launchers.node.submitted_task", "launchers.entry"])
def test_the_entries_are_light(module: str) -> None:
    """What takes seconds to import comes after the first line that counts."""
    code = f"import sys, {module}; print(sorted({{'torch', 'pydantic', 'yaml', 'submitit'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


@pytest.mark.parametrize(
    ("entry", "imports", "number"),
    [
        ("launchers.node.slurm_task", "launchers.node.task", signal.SIGTERM),
        ("launchers.entry", "launchers.cli", signal.SIGINT),
    ],
)
def test_an_entry_ends_on_the_spot_while_it_imports(entry: str, imports: str, number: signal.Signals) -> None:
    code = (
        "import builtins, os, signal\n"
        "real = builtins.__import__\n"
        "def importing(name, *rest):\n"
        f"    if name == {imports!r}:\n"
        f"        os.kill(os.getpid(), {int(number)})\n"
        "    return real(name, *rest)\n"
        "builtins.__import__ = importing\n"
        f"from {entry} import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=COMMAND_S)
    assert done.returncode == 128 + number, done.stderr
    assert done.stderr == f"ended by {number.name} before anything had begun\n"


def test_a_command_that_has_begun_meets_signals_as_always() -> None:
    """Commands have handlers of their own, or die of them."""
    code = (
        "import signal, launchers.cli, launchers.entry\n"
        "wanted = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)]\n"
        "found = lambda: [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)]\n"
        "launchers.cli.main = lambda: print(found() == wanted)\n"
        "launchers.entry.main()\n"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "True\n"
