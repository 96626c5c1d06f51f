"""Last words on a full disk."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from core.run_dir.moment import Moment
from core.run_dir.run_directory import RunDirectory
from launchers.attempts import failure, outcome
from launchers.attempts.attempt import open_attempt
from launchers.attempts.failure import Failure, read_record, write_record
from launchers.attempts.ledger import Ledger
from launchers.attempts.outcome import Outcome, read_outcome, write_outcome
from launchers.attempts.reserve import RESERVED_BYTES

RAISED = Failure("trainer", "0", Moment("save", 1), "OSError: No space left on device", 8)


def fill_disk(reserve: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No room but the reserve's."""
    for module in (failure, outcome):
        real: Callable[[Path, str], None] = module.write_atomically

        def write(path: Path, text: str, real: Callable[[Path, str], None] = real) -> None:
            if reserve.exists():
                raise OSError(errno.ENOSPC, "No space left on device")
            real(path, text)

        monkeypatch.setattr(module, "write_atomically", write)


@pytest.mark.parametrize("of_a_process", [True, False], ids=["process", "attempt"])
def test_a_failure_is_recorded_on_a_full_disk(
    of_a_process: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = RunDirectory(tmp_path)
    with open_attempt(directory, ["n1"]) as attempt:
        reserve = attempt.folder / "reserve"
        assert reserve.stat().st_size == RESERVED_BYTES
        fill_disk(reserve, monkeypatch)
        if of_a_process:
            RAISED.write(attempt.folder / "failures" / "trainer-0.json")
        else:
            write_record(attempt.folder, RAISED)
            assert read_record(attempt.folder) == RAISED
        attempt.end(Outcome("failed", cause="no space"), 1)
    assert [entry.cause for entry in Ledger(directory).attempts()] == ["no space"]


def test_the_outcome_is_the_last_word_and_leaves_no_reserve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_attempt(RunDirectory(tmp_path), ["n1"]) as attempt:
        fill_disk(attempt.folder / "reserve", monkeypatch)
        write_outcome(attempt.folder, Outcome("failed"))
        assert read_outcome(attempt.folder) == Outcome("failed")
        assert not (attempt.folder / "reserve").exists()


def test_another_error_is_not_swallowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(path: Path, text: str) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(failure, "write_atomically", write)
    with pytest.raises(OSError, match="Read-only"):
        write_record(tmp_path, RAISED)
