from __future__ import annotations

from pathlib import Path

import pytest

from launchers.show.saved import saved_text
from tests.support.histories import step, write_history


@pytest.mark.parametrize(
    ("done", "saved", "text"),
    [
        (0, None, "nothing is saved, no step was complete"),
        (3, None, "nothing is saved, so all 3 steps will be done again"),
        (3, 2, "saved up to step 2; 1 later steps will be done again"),
        (3, 3, "saved, all 3 steps that are complete"),
    ],
    ids=["nothing done", "nothing saved", "behind", "all"],
)
def test_what_is_lost_is_named(done: int, saved: int | None, text: str, tmp_path: Path) -> None:
    directory = write_history(tmp_path, progress=[step(number) for number in range(done)])
    if saved is not None:
        (directory.checkpoints / f"step_{saved:06d}").mkdir(parents=True)
        (directory.checkpoints / "step_000009.unfinished").mkdir()
    assert saved_text(directory) == text
