"""Signals from the first line on, in processes of their own."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

SENDS = "import os, signal; from launchers.node import early; early.{mode}(); os.kill(os.getpid(), {number}); "
TELLS = "print(early.take(), early.take())"


def run(mode: str, number: int) -> subprocess.CompletedProcess[str]:
    code = SENDS.format(mode=mode, number=number) + TELLS
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)


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


@pytest.mark.parametrize("module", ["launchers.node.slurm_task", "launchers.node.submitted_task"])
def test_the_entries_are_light(module: str) -> None:
    """What takes seconds to import comes after the first line that counts."""
    code = f"import sys, {module}; print(sorted({{'torch', 'pydantic', 'yaml', 'submitit'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_an_entry_ends_on_the_spot_while_it_imports() -> None:
    code = (
        "import builtins, os, signal\n"
        "real = builtins.__import__\n"
        "def importing(name, *rest):\n"
        "    if name == 'launchers.node.task':\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "    return real(name, *rest)\n"
        "builtins.__import__ = importing\n"
        "from launchers.node.slurm_task import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 143, done.stderr
