from __future__ import annotations

from pathlib import Path

import pytest

from launchers.attempts import stop_request
from launchers.attempts.stop_request import StopRequest, ask_to_stop


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stop_request, "LOOK_S", 0.0)


def test_a_wish_is_seen_once_it_is_there_and_stays(tmp_path: Path) -> None:
    request = StopRequest(tmp_path)
    assert not request.made
    assert ask_to_stop(tmp_path)
    assert request.made
    (tmp_path / "stop").unlink()
    assert request.made


def test_a_folder_that_is_away_tells_of_no_wish_and_takes_none(tmp_path: Path) -> None:
    assert not ask_to_stop(tmp_path / "away")
    assert not StopRequest(tmp_path / "away").made
