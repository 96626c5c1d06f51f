from __future__ import annotations

from pathlib import Path

import pytest

from launchers.show.short_path import short_path


def test_what_lies_here_is_said_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert short_path(tmp_path / "runs" / "demo") == "runs/demo"
    assert short_path(tmp_path) == str(tmp_path)
    assert short_path(tmp_path.parent / "other") == str(tmp_path.parent / "other")
    assert short_path(Path("runs/demo")) == "runs/demo"
