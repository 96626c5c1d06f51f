"""`ebbtide diff`: what differs between runs, and only that."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from launchers.attempts.provenance import Provenance, note_provenance
from launchers.cli import app
from launchers.report.comparison import compare
from launchers.report.run_facts import read_run, read_runs
from tests.support.report_runs import SETTINGS, write_report_run

MADE = Provenance(
    python="3.11.7",
    packages={"torch": "2.13.0", "sglang": "0.5.21"},
    commit="a" * 40,
    dirty=(" M core/x.py",),
    host="n1",
    cores=2,
    user_files=({"key": "reward.path", "path": "/r.py", "sha256": "b" * 64},),
)


def other_settings(**train: object) -> dict[str, object]:
    return {**SETTINGS, "train": {"global_batch_size": 16, "lr": 1e-5, **train}}


def test_settings_and_ends_of_curves(tmp_path: Path) -> None:
    one = read_run(write_report_run(tmp_path / "one", stored=0))
    # min_lr has its default here, as in a run file that was resolved by a later version
    other = read_run(write_report_run(tmp_path / "two", 2, 4, other_settings(lr=3e-5, min_lr=0.0), stored=0))
    found = compare([one, other], [None, None])
    assert found["settings"] == {"train.lr": ["1e-05", "3e-05"]}
    curves = found["curves, first → last"]
    assert list(curves)[:3] == ["Reward", "accuracy of kept_out", "Response length"]
    assert curves["Response length"] == ["20 → 23", "20 → 21"]
    assert list(found) == ["settings", "curves, first → last"]


def test_versions_and_files(tmp_path: Path) -> None:
    run = read_run(write_report_run(tmp_path / "one", stored=0))
    changed = replace(
        MADE,
        packages={"torch": "2.14.0", "sglang": "0.5.21", "triton": "3.9.0"},
        dirty=(),
        user_files=({"key": "reward.path", "path": "/r.py", "sha256": "c" * 64},),
    )
    assert compare([run, run], [MADE, changed])["versions"] == {
        "torch": ["2.13.0", "2.14.0"],
        "changed files": ["core/x.py", ""],
        "reward.path": ["b" * 16, "c" * 16],
        "triton": ["—", "3.9.0"],
    }
    assert "versions" not in compare([run, run], [MADE, MADE])
    assert compare([run, run], [None, MADE])["versions"] == {"noted": ["—", MADE.code_text]}


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_report_run(tmp_path / "one", stored=0)
    directory = write_report_run(tmp_path / "t\x1b[2Jwo", settings=other_settings(lr=3e-5), stored=0)
    directory.progress.write_text(directory.progress.read_text() + "{cut off")
    monkeypatch.setattr(sys, "argv", ["ebbtide"])
    note_provenance(directory, 1)
    done = CliRunner().invoke(app, ["diff", str(tmp_path / "one"), str(directory.path)], env={"COLUMNS": "120"})
    assert done.exit_code == 0, done.output
    words = " ".join(done.output.split())
    for text in (
        "train.lr 1e-05 3e-05",
        "noted — ebbtide",
        "Reward 0.2 →",
        "1 of 25 lines of progress.jsonl cannot be",
    ):
        assert text in words
    assert "\x1b[2J" not in done.output
    same = CliRunner().invoke(app, ["diff", str(tmp_path / "one"), str(tmp_path / "one")])
    assert "Settings and versions are the same." in same.output


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a/x/out", "a/y/out", "b/y/out", "alone")]
    names = [run.name for run in read_runs([write_report_run(path, 1, stored=0) for path in paths])]
    assert names == ["x/out", "a/y/out", "b/y/out", "alone"]


def test_one_run_is_compared_with_nothing(tmp_path: Path) -> None:
    write_report_run(tmp_path, 1, stored=0)
    done = CliRunner().invoke(app, ["diff", str(tmp_path)])
    assert done.exit_code == 2
    assert "wanted two or more" in done.output
