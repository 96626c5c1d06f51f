"""What a user's text says of itself, by file and by package."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from core.checks.said import said

FUNCTION = (
    'def mine(parts, every=2, *, deep=None, sum=len):\n    return True\n\n\nmine.overlaps = ("rollout", "update")\n'
)
CLASS = """class Mine:
    needs: bool = True
    later: int
    low, high = 1, 2
    computed = len([])

    def __init__(self, beta=0.1):
        pass
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "said_by_a_package"
    folder.mkdir()
    (folder / "__init__.py").write_text('raise RuntimeError("nobody runs this")\n')
    monkeypatch.syspath_prepend(tmp_path)
    return folder


def test_a_functions_values_are_found_by_file_and_by_package(package: Path) -> None:
    (package / "rules.py").write_text(FUNCTION)
    for path in (f"{package}/rules.py:mine", "said_by_a_package.rules:mine"):
        assert said(path) == ({"overlaps": ("rollout", "update")}, {"every": 2, "deep": None})


def test_a_classes_values_are_plain_ones_with_a_name_each(package: Path) -> None:
    (package / "rules.py").write_text(CLASS + "\n\nMine.more = -1\nOther.more = 3\n")
    assert said(f"{package}/rules.py:Mine") == ({"needs": True, "more": -1}, {"beta": 0.1})


@pytest.mark.parametrize("text", ["def mine(:\n", "mine = {[]: 1}\n", "class mine:\n    x = {[]: 1}\n"])
def test_a_text_that_says_nothing_readable_says_nothing(package: Path, text: str) -> None:
    (package / "rules.py").write_text(text)
    assert said(f"{package}/rules.py:mine") == ({}, {})


def test_a_changed_file_is_read_again(package: Path) -> None:
    file = package / "rules.py"
    file.write_text("def mine():\n    pass\n\n\nmine.size = 1\n")
    assert said(f"{file}:mine").own == {"size": 1}
    file.write_text("def mine():\n    pass\n\n\nmine.size = 22\n")
    os.utime(file, ns=(0, file.stat().st_mtime_ns + 10**9))  # clocks of file systems are coarse
    assert said(f"{file}:mine").own == {"size": 22}
