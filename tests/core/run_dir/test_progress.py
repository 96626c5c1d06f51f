from __future__ import annotations

import json
from pathlib import Path

from common.files import append_line
from core.run_dir.progress import Progress, ProgressReader


def test_an_event_that_a_full_disk_cut_off_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "progress.jsonl"
    Progress(path).event("step", step=0)
    with path.open("a") as file:
        file.write('{"event": "step", "st')
    reader = ProgressReader(path)
    assert [event["step"] for event in reader.new_events()] == [0]
    Progress(path).event("step", step=1)
    assert [event["step"] for event in reader.new_events()] == [1]
    assert [event["step"] for event in ProgressReader(path).new_events()] == [0, 1]


def test_lines_are_appended_one_by_one(tmp_path: Path) -> None:
    for number in range(3):
        append_line(tmp_path / "lines", json.dumps(number), durable=True)
    assert (tmp_path / "lines").read_text() == "0\n1\n2\n"
