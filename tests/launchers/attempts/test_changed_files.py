"""Files outside the run directory that are no longer what the run has used: named, or refused (shared case 21)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from core.config import dump_run_file, load_run_file
from core.run_dir.run_directory import RunDirectory
from launchers.attempts import fingerprints
from launchers.attempts.attempt import open_attempt
from launchers.attempts.changed_files import changed_files, decides_samples
from launchers.attempts.fingerprints import pieces, sha256
from launchers.attempts.outcome import Outcome
from launchers.attempts.provenance import newest_files, settings_of
from launchers.attempts.user_files import keep_user_files
from launchers.commands.changes import compare_files
from tests.support.good_run import write_run, write_weights
from tests.support.tiny_runs import ebbtide

SETTINGS = [
    "data.chat_template=own.jinja",
    "model.reference_path=deeper",
    "algorithm.kl_loss_coef=0.1",
    "reward={type: 'score.py:score'}",
    "rollout.generate=own.py:generate",
]


def attempt(directory: RunDirectory) -> None:
    """An attempt that begins and ends."""
    with open_attempt(directory, ["node"]) as opened:
        opened.end(Outcome("failed"), 1)


def begun(tmp_path: Path, settings: list[str]) -> RunDirectory:
    """A run that has begun."""
    path = write_run(tmp_path)
    (tmp_path / "own.jinja").write_text("{{ messages[0].content }}")
    (tmp_path / "own.py").write_text("async def generate(task, engine):\n    return await engine.generate(task)\n")
    (tmp_path / "score.py").write_text("def score(sample):\n    return 1.0\n")
    directory = RunDirectory(tmp_path / "out")
    directory.path.mkdir()
    dump_run_file(load_run_file(path, settings), directory.run_file)
    attempt(directory)
    return directory


@pytest.fixture
def run_dir(tmp_path: Path) -> RunDirectory:
    return begun(tmp_path, SETTINGS)


def append(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        with (folder / name).open("a") as file:
            file.write("\n")

    return change


CHANGES: dict[str, tuple[Callable[[Path], None], str, bool]] = {
    "rows": (append("rows.jsonl"), "data.path: ROOT/rows.jsonl, whose content has changed", True),
    "template": (append("own.jinja"), "data.chat_template: ROOT/own.jinja, whose content has changed", True),
    "tokenizer": (append("model/tokenizer.json"), "model.path: ROOT/model/tokenizer.json, whose content", True),
    "template of the model": (
        append("model/chat_template.jinja"),
        "model.path: ROOT/model/chat_template.jinja, whose content has changed",
        True,
    ),
    "a file more": (
        append("model/generation_config.json"),
        "model.path: ROOT/model/generation_config.json, which is new",
        True,
    ),
    "a file less": (
        lambda folder: (folder / "model/chat_template.jinja").unlink(),
        "model.path: ROOT/model/chat_template.jinja, which is gone",
        True,
    ),
    "weights": (
        lambda folder: write_weights(folder / "model/model.safetensors", {"a": (3,)}),
        "model.path: ROOT/model/model.safetensors, whose content has changed",
        True,
    ),
    "generation": (append("own.py"), "rollout.generate: ROOT/own.py, whose content has changed", True),
    "reward": (append("score.py"), "reward.type: ROOT/score.py, whose content has changed", False),
    "reference": (append("deeper/config.json"), "model.reference_path: ROOT/deeper/config.json, whose", False),
    "reward gone": (
        lambda folder: (folder / "score.py").unlink(),
        "reward.type: ROOT/score.py, No such file or directory",
        False,
    ),
}


@pytest.mark.parametrize(("change", "text", "grave"), CHANGES.values(), ids=CHANGES)
def test_a_change_is_named_and_refused_where_samples_would_differ(
    change: Callable[[Path], None],
    text: str,
    grave: bool,
    run_dir: RunDirectory,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    compare_files(run_dir, accept=False)
    assert capsys.readouterr().err == ""
    change(tmp_path)
    key, _, named = text.replace("ROOT", str(tmp_path)).partition(": ")
    found = list(changed_files(newest_files(run_dir), keep_user_files(settings_of(run_dir), None)))
    assert [mistake.key for mistake in found] == [key]
    assert found[0].found.startswith(named)
    assert decides_samples(found[0]) == grave
    if grave:
        with pytest.raises(typer.Exit):
            compare_files(run_dir, accept=False)
        told = capsys.readouterr().err
        assert f"{key}: found {named}" in told
        assert "put the old one back, or go on with --accept-changes" in told
    compare_files(run_dir, accept=grave)
    assert f"changed since the attempt before: {key}: {named}" in capsys.readouterr().err
    with caplog.at_level(logging.WARNING):
        attempt(run_dir)  # goes on with it; one that requeues itself is not asked
    assert f"changed since the attempt before: {key}: {named}" in caplog.text
    compare_files(run_dir, accept=False)
    assert capsys.readouterr().err == ""


def test_the_command_refuses_to_go_on_over_other_rows(tmp_path: Path) -> None:
    run_dir = begun(tmp_path, [])
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write('{"prompt": "p", "label": "1"}\n')
    done = ebbtide("resume", str(run_dir.path))
    assert done.returncode == 2
    assert f"data.path: found {tmp_path}/rows.jsonl, whose content has changed; wanted what the run" in done.stderr
    assert "--accept-changes" in done.stderr
    assert not (run_dir.path / "attempts" / "2").exists()


def test_an_attempt_that_noted_no_models_has_none_to_compare(run_dir: RunDirectory) -> None:
    noted = [entry for entry in newest_files(run_dir) if not str(entry["key"]).startswith("model.")]
    assert len(noted) < len(newest_files(run_dir))
    assert list(changed_files(noted, keep_user_files(settings_of(run_dir), None))) == []
    assert list(changed_files([], keep_user_files(settings_of(run_dir), None))) == []


def test_shards_of_a_folder_are_held_one_by_one(tmp_path: Path) -> None:
    for name in ("a-0.jsonl", "a-1.jsonl", "notes.txt"):
        (tmp_path / name).write_text("{}\n")
    settings = {"data": {"path": str(tmp_path)}}
    before = keep_user_files(settings, None)
    assert [entry["path"] for entry in before] == [f"{tmp_path}/a-0.jsonl", f"{tmp_path}/a-1.jsonl"]
    (tmp_path / "a-1.jsonl").write_text('{"prompt": 1}\n')
    (mistake,) = changed_files(before, keep_user_files(settings, None))
    assert mistake.found == f"{tmp_path}/a-1.jsonl, whose content has changed"
    (tmp_path / "a-1.jsonl").unlink()
    (tmp_path / "a-2.jsonl").write_text("{}\n")
    found = [mistake.found for mistake in changed_files(before, keep_user_files(settings, None))]
    assert found == [f"{tmp_path}/a-1.jsonl, which is gone", f"{tmp_path}/a-2.jsonl, which is new"]


def test_a_file_under_another_path_is_another_setting(tmp_path: Path) -> None:
    for name in ("one/rows.jsonl", "two/rows.jsonl"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(name)
    before, now = (
        keep_user_files({"data": {"path": f"{tmp_path}/{name}/rows.jsonl"}}, None) for name in ("one", "two")
    )
    assert list(changed_files(before, now)) == []


def test_a_large_file_is_known_by_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"WHOLE_BYTES": 10, "NUM_PIECES": 4, "PIECE_BYTES": 8}.items():
        monkeypatch.setattr(fingerprints, name, value)
    file = tmp_path / "large"
    found = set()
    for place in (0, 40, 99, 100):  # the last: another size
        content = bytearray(101 if place == 100 else 100)
        content[place] = 1
        file.write_bytes(content)
        found.add(pieces(file))
    assert len(found) == 4
    assert sha256(file) not in found
