"""Ctrl-C at a terminal, with a small child in place of the node agent; the real one: tests/runs/."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from common.waiting import wait_until
from core.processes.children import Child
from core.run_dir.progress import ProgressReader
from launchers.attempts.exit_codes import INTERRUPTED
from launchers.foreground import follow as module
from launchers.foreground.follow import follow, interrupts
from launchers.show.display import Display
from tests.support.descendants import spare_descendants
from tests.support.waiting import DEADLINE_S

SAVES = "import pathlib, sys, time\nwhile not pathlib.Path(sys.argv[1]).exists(): time.sleep(0.02)"
NEVER = "import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\ntime.sleep(600)"


class Followed:
    """A child that is followed; `when` sends a signal to this process once something holds."""

    def __init__(self, folder: Path, program: str) -> None:
        self.folder = folder
        self.text = StringIO()
        self.program = program
        self.child: Child | None = None

    def when(self, holds: Callable[[], bool], number: signal.Signals) -> None:
        def send() -> None:
            assert wait_until(holds, DEADLINE_S, 0.02)
            os.kill(os.getpid(), number)

        threading.Thread(target=send, daemon=True).start()

    def run(self, pending: list[int] | None = None) -> int:
        command = [sys.executable, "-c", self.program, str(self.folder / "stop")]
        display = Display(Console(file=self.text, width=200))
        self.child = Child("agent", command, os.environ, self.folder / "log")
        return follow(self.child, ProgressReader(self.folder / "progress"), display, self.folder, pending)

    @property
    def started(self) -> bool:
        return self.child is not None

    @property
    def asked(self) -> bool:
        return (self.folder / "stop").exists()


@pytest.fixture(autouse=True)
def leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The command ends what its child has left, once; here that would be the ranks of other tests, too."""
    asked = spare_descendants(monkeypatch)
    yield
    assert asked == [module.__name__]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_the_first_one_lets_it_save(number: signal.Signals, tmp_path: Path) -> None:
    followed = Followed(tmp_path, SAVES)
    followed.when(lambda: followed.started, number)
    assert followed.run() == INTERRUPTED
    assert followed.child is not None
    assert followed.child.exit_code() == 0
    assert "stopping: saves first, for 10 min at most; Ctrl-C again: at once" in followed.text.getvalue()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_one_that_came_while_it_began_counts(number: signal.Signals, tmp_path: Path) -> None:
    followed = Followed(tmp_path, SAVES)
    with interrupts() as pending:
        os.kill(os.getpid(), number)
        assert followed.run(pending) == INTERRUPTED
    assert followed.asked


def test_the_second_one_ends_it_at_once(tmp_path: Path) -> None:
    followed = Followed(tmp_path, NEVER)
    followed.when(lambda: followed.started, signal.SIGINT)
    followed.when(lambda: followed.asked, signal.SIGINT)
    assert followed.run() == INTERRUPTED
    assert "leaving at once" in followed.text.getvalue()


def test_saving_has_a_deadline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SAVE_DEADLINE_S", 0.3)
    followed = Followed(tmp_path, NEVER)
    followed.when(lambda: followed.started, signal.SIGINT)
    assert followed.run() == INTERRUPTED
    assert "not saved within 0 min: leaving" in followed.text.getvalue()


def test_where_no_wish_can_be_left_it_ends_at_once(tmp_path: Path) -> None:
    followed = Followed(tmp_path, NEVER)
    (tmp_path / "stop").symlink_to(tmp_path / "away" / "stop")  # as on a full disk: the file cannot be made
    followed.when(lambda: followed.started, signal.SIGINT)
    assert followed.run() == INTERRUPTED
    assert "saves first" not in followed.text.getvalue()
