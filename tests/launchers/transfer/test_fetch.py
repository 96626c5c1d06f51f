"""`ebbtide fetch` from a hub on this machine, hub names in run files, and what is said where there is no way."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.checks import check_run_file
from core.config import RunFileError
from tests.support.good_run import SHAPE, write_model, write_run
from tests.support.loopback_hub import COMMIT, Hub, loopback_hub

MODEL = "acme/tiny-1.5"
DATA = "acme/sums"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    model, data = (tmp_path / "hub" / kind / name for kind, name in (("models", MODEL), ("datasets", DATA)))
    model.parent.mkdir(parents=True)
    write_model(model, SHAPE)
    (model / "original").mkdir()
    (model / "original" / "consolidated.json").write_text("{}")
    (model / "pytorch_model.bin").write_text("not wanted")
    (data / "main").mkdir(parents=True)
    write_parquet(data / "main" / "test-00000-of-00001.parquet", 3)
    for shard in range(2):
        write_parquet(data / "train" / f"train-{shard:05d}-of-00002.parquet", 5)
    (data / "extra.jsonl").write_text('{"prompt": "p", "label": "1"}\n')
    (data / "picture.png").write_text("not wanted")
    with loopback_hub(tmp_path / "hub") as served:
        yield served


def write_parquet(path: Path, num_rows: int) -> None:
    import pyarrow
    import pyarrow.parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    rows = {"question": ["q"] * num_rows, "answer": ["1"] * num_rows}
    pyarrow.parquet.write_table(pyarrow.table(rows), path)


def ebbtide(hub_url: str, home: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own: the library reads its environment once."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    settings = {"HF_ENDPOINT": hub_url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", **environment}
    command = [sys.executable, "-m", "launchers", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**kept, **settings})


def test_a_model_is_fetched_named_in_a_run_file_and_not_fetched_again(hub: Hub, tmp_path: Path) -> None:
    home = tmp_path / "home"
    run_file = write_run(tmp_path)
    run_file.write_text(run_file.read_text().replace("  path: model\n", f"  path: {MODEL}\n"))
    before = ebbtide(hub.url, home, "plan", str(run_file))
    wanted = (
        f"model.path: found {MODEL}, which is neither beside the run file nor, all of it, in the hub's cache "
        f"{home}/hub; wanted a model that is here: fetch it, where there is internet: ebbtide fetch {MODEL}\n"
    )
    assert before.returncode == 2
    assert wanted in before.stderr + before.stdout

    done = ebbtide(hub.url, home, "fetch", MODEL)
    assert done.returncode == 0, done.stderr
    snapshot = home / "hub" / "models--acme--tiny-1.5" / "snapshots" / COMMIT
    assert done.stdout.splitlines()[0].endswith(f"in {snapshot}")
    assert done.stdout.splitlines()[-1] == f"  model: {{path: {MODEL}}}"
    names = {path.name for path in snapshot.rglob("*")}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
    assert not {"pytorch_model.bin", "original"} & names

    hub.asked.clear()
    assert ebbtide(hub.url, home, "fetch", MODEL).returncode == 0
    assert not [line for line in hub.asked if "/resolve/" in line and line.startswith("GET")]

    offline = ebbtide("http://127.0.0.1:9", home, "plan", str(run_file), HF_HUB_OFFLINE="1")
    assert offline.returncode == 0, offline.stdout + offline.stderr


def test_a_download_that_broke_off_is_no_model(hub: Hub, tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert ebbtide(hub.url, home, "fetch", MODEL).returncode == 0
    next(home.rglob("model.safetensors")).unlink()
    run_file = write_run(tmp_path)
    run_file.write_text(run_file.read_text().replace("  path: model\n", f"  path: {MODEL}\n"))
    told = ebbtide(hub.url, home, "plan", str(run_file))
    assert f"ebbtide fetch {MODEL}" in told.stderr + told.stdout


def test_data_are_shown_with_rows_and_columns_as_a_run_file_names_them(hub: Hub, tmp_path: Path) -> None:
    home = tmp_path / "home"
    done = ebbtide(hub.url, home, "fetch", DATA, "--dataset")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()[2:]
    assert lines == [
        f"  data: {{source: jsonl, path: {DATA}/extra.jsonl}}",
        "    columns: prompt, label",
        f"  data: {{source: parquet, path: {DATA}/main/test-00000-of-00001.parquet}}",
        "    3 rows; columns: question, answer",
        f"  data: {{source: parquet, path: {DATA}/train}}",
        "    10 rows; columns: question, answer",
    ]
    assert not list(home.rglob("picture.png"))
    run_file = write_run(tmp_path)
    keys = "source: parquet\n  prompt_key: question\n  label_key: answer"
    run_file.write_text(run_file.read_text().replace("  path: rows.jsonl\n", f"  path: {DATA}/train\n  {keys}\n", 1))
    checked = ebbtide(hub.url, home, "plan", str(run_file))
    assert checked.returncode == 0, checked.stdout + checked.stderr
    with pytest.raises(RunFileError, match=rf"data.path: found {DATA}/train, .*ebbtide fetch {DATA}/train --dataset"):
        check_run_file(run_file)  # this process has another cache


def test_a_part_of_a_data_set_is_fetched_alone(hub: Hub, tmp_path: Path) -> None:
    done = ebbtide(hub.url, tmp_path / "home", "fetch", f"{DATA}/main", "--dataset")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("1 file, ")
    assert not list((tmp_path / "home").rglob("train-*"))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["acme/none"], "found no model acme/none at {hub}; wanted one that this user may see: correct the name; add"),
        ([MODEL, "--revision", "v9"], f"found no revision v9 of {MODEL}; wanted a branch, a tag or a commit: correct"),
        (["gated/one"], "found gated/one, which is gated; wanted the token of a user who has access: ask for access"),
        (["no-name"], "found no-name; wanted owner/name, as the hub spells it: correct the name"),
        ([f"{DATA}/nowhere", "--dataset"], f"found nothing of use in {DATA}/nowhere; wanted files of a dataset"),
    ],
)  # fmt: skip
def test_what_cannot_be_fetched_is_told(hub: Hub, tmp_path: Path, words: list[str], told: str) -> None:
    (tmp_path / "hub" / "models" / "gated").mkdir()
    write_model(tmp_path / "hub" / "models" / "gated" / "one", SHAPE)
    hub.gated.add("gated/one")
    done = ebbtide(hub.url, tmp_path / "home", "fetch", *words, HF_TOKEN="hf_ofsomebodyelse")
    assert done.returncode == 2
    assert told.format(hub=hub.url) in done.stderr
    assert "hf_ofsomebodyelse" not in done.stdout + done.stderr


def test_a_token_opens_what_is_gated_and_is_not_shown(hub: Hub, tmp_path: Path) -> None:
    hub.gated.add(MODEL)
    done = ebbtide(hub.url, tmp_path / "home", "fetch", MODEL, HF_TOKEN=hub.token)
    assert done.returncode == 0, done.stderr
    assert hub.token not in done.stdout + done.stderr


@pytest.mark.parametrize("offline", ["0", "1"])
def test_without_a_network_the_command_for_the_login_node_is_told(tmp_path: Path, offline: str) -> None:
    done = ebbtide("http://127.0.0.1:9", tmp_path, "fetch", DATA, "--dataset", HF_HUB_OFFLINE=offline)
    assert done.returncode == 2
    off = " (HF_HUB_OFFLINE is set)" if offline == "1" else ""
    assert done.stderr.splitlines()[-1] == (
        f"found no way to http://127.0.0.1:9 from here{off}; wanted the hub: "
        f"type on a machine with internet that sees {tmp_path}/hub: ebbtide fetch {DATA} --dataset"
    )


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_damaged_file_is_found_by_its_checksum_and_fetched_again(hub: Hub, tmp_path: Path, name: str) -> None:
    hub.damaged.add(name)
    done = ebbtide(hub.url, tmp_path / "home", "fetch", MODEL)
    assert done.returncode == 2
    assert f"found {name} with another checksum than the hub's" in done.stderr
    hub.damaged.clear()
    again = ebbtide(hub.url, tmp_path / "home", "fetch", MODEL)
    assert again.returncode == 0, again.stderr
