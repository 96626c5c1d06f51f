"""`ebbtide inspect` with wishes: --failed, --truncated, --row, --jsonl."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from core.samples import Status
from core.trajectory import step_path, write_step
from launchers.cli import app
from launchers.show.samples import MOST_SHOWN
from tests.support.step_samples import make_record, make_samples


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """Two groups of three, of rows 100 and 101: 1 and 4 failed, 2 and 4 cut off."""
    samples = make_samples(2, 3)
    for number, sample in enumerate(samples):
        failed = number in (1, 4)
        sample.reward, sample.failure = (None, "why\x1b[2J not") if failed else (number / 10, None)
        sample.status = Status.TRUNCATED if number in (2, 4) else Status.COMPLETED
        sample.response_text, sample.turns = f"text{number} \x1b[2J", ()
    write_step(step_path(tmp_path, 3), make_record(samples, 3))
    return tmp_path


def inspect(run_dir: Path, *words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["inspect", str(run_dir), *words], env={"COLUMNS": "150"})
    assert "\x1b" not in done.output
    return done.exit_code, done.output


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["--failed"], [1, 4]),
        (["--truncated"], [2, 4]),
        (["--failed", "--truncated"], [4]),
        (["--row", "101"], [3, 4, 5]),
        (["--row", "101", "--best", "1"], [5]),
        (["--row", "100", "--worst", "9"], [0, 2]),
        (["--failed", "--worst", "1"], [1]),
    ],
    ids=str,
)
def test_which_are_shown(run_dir: Path, words: list[str], shown: list[int]) -> None:
    code, text = inspect(run_dir, *words)
    assert code == 0
    assert [number for number in range(6) if f"text{number}" in text] == shown


@pytest.mark.parametrize(
    ("words", "shown"), [([], [0, 1, 2, 3, 4, 5]), (["--failed"], [1, 4]), (["--row", "9"], [])], ids=str
)
def test_lines_of_json(run_dir: Path, words: list[str], shown: list[int]) -> None:
    code, text = inspect(run_dir, "--jsonl", *words)
    assert code == 0
    found = [json.loads(line) for line in text.splitlines()]
    assert [one["response"] for one in found] == [f"text{number} \x1b[2J" for number in shown]
    for one, number in zip(found, shown, strict=True):
        assert one["reward"] == (None if number in (1, 4) else number / 10)
        assert one["label"] == {"answer": [number // 3]}
        assert (one["step"], one["group"], one["index"], one["row"]) == (3, number // 3, number % 3, 100 + number // 3)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--row", "7", "--failed"], "step 3: found no sample that is failed, of row 7; wanted one"),
        (["--jsonl", "--best", "1"], "found --jsonl with --best or --worst; wanted one of them"),
        (["--jsonl", "--step", "9"], "step 9 is not stored"),
    ],
)
def test_mistakes(run_dir: Path, words: list[str], says: str) -> None:
    code, text = inspect(run_dir, *words)
    assert code == 2
    assert says in text


def test_many_are_not_all_shown(tmp_path: Path) -> None:
    write_step(step_path(tmp_path, 0), make_record(make_samples(1, MOST_SHOWN + 5), 0))
    code, text = inspect(tmp_path, "--row", "100")
    assert code == 0
    assert text.count("of row 100: group 0") == MOST_SHOWN
    assert "and 5 more: --jsonl gives all" in text
