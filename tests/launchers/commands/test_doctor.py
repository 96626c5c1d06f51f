"""`ebbtide doctor` removes what killed runs have left on this machine. Its other answers need a cluster."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from core.run_dir.run_directory import RunDirectory
from launchers.attempts.attempt import locked
from launchers.commands.doctor import _remove_leftovers
from launchers.node import temporary


def test_leftovers_of_killed_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Temporary folders, and keys in runs/; those of a run at work stay."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(temporary, "MAX_LENGTH", 400)
    monkeypatch.chdir(tmp_path)
    dead = tmp_path / "ebbtide-dead"
    dead.mkdir()
    (dead / temporary.ALIVE).write_text(os.uname().nodename)
    keys = []
    for name in ("killed", "at-work"):
        folder = tmp_path / "runs" / name / "attempts" / "1"
        folder.mkdir(parents=True)
        (tmp_path / "runs" / name / "run.yaml").touch()
        keys.append(folder / "key")
        keys[-1].touch()
    with locked(RunDirectory(tmp_path / "runs" / "at-work")):
        assert set(_remove_leftovers()) == {dead, keys[0]}
    assert [path.exists() for path in (dead, *keys)] == [False, False, True]
