from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from core.checks import check_run_file
from core.config import RunFileError
from tests.support.good_run import RUN_FILE, write_run

TABLE = yaml.safe_load(Path(__file__).with_name("bad_run_files.yaml").read_text(encoding="utf-8"))


def broken_text(case: dict[str, Any]) -> str:
    text = RUN_FILE
    for change in case.get("replace", ()):
        assert change["old"] in text, "the case no longer changes anything"
        text = text.replace(change["old"], change["new"], 1)
    return text


@pytest.mark.parametrize("case", [pytest.param(case, id=case["id"]) for case in TABLE])
def test_a_mistake_is_reported_in_full(case: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_run(tmp_path, case.get("text") or broken_text(case))
    if "text" in case and case["text"] is None:
        path.unlink()
    with pytest.raises(RunFileError) as caught:
        check_run_file(path, case.get("set", ()))
    assert str(caught.value).replace(str(tmp_path), "DIR") == case["says"].rstrip("\n")
