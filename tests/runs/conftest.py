"""What several files of tests of whole runs share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.tiny_runs import ebbtide, write_run


@pytest.fixture(scope="session")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of four steps without interruption."""
    folder = tmp_path_factory.mktemp("straight")
    done = ebbtide("run", str(write_run(folder)), "--run-dir", str(folder / "out"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "resume" not in done.stdout
    (folder / "out" / "stdout.txt").write_text(done.stdout)
    return folder / "out"
