"""`ebbtide export`: which checkpoint, where to, and what is said of each that cannot be written."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from common.mistake import Wrong
from core.loop.manifest import write_manifest
from core.loop.state import LoopState
from core.pretrained.model_writer import ModelWriter
from core.run_dir.run_directory import RunDirectory
from launchers.transfer import new_directory
from launchers.transfer.export import Exported, export
from launchers.transfer.new_directory import PRECISIONS
from tests.support.good_run import RUN_FILE
from tests.support.ranks import run_ranks
from tests.support.tiny_models import tiny_model

STEPS = (2, 4)
MIB = 2**20


def make_run(folder: Path, kind: str, **changes: Any) -> RunDirectory:
    """A run directory with a checkpoint after each of STEPS, and the model that the trainer wrote after the last."""
    model = tiny_model(kind, folder / "model", **changes)
    (model / "tokenizer.json").write_text("{}")
    run = RunDirectory(folder / "run")
    actions = [[verb, *rest] for step in STEPS for verb, *rest in (["update", step], ["save", _trainer(run, step)])]
    case = {"model": str(model), "config": {}, "actions": [*actions, ["save_hf", str(run.hf_model)]]}
    for step in STEPS:
        run.checkpoint(step).mkdir(parents=True)
    done = run_ranks(folder / "rank", 1, {"run": case})["run"]
    assert len(done) == 2 * len(STEPS) + 1, done
    for step in STEPS:
        write_manifest(run.checkpoint(step), LoopState(step, step * 8))
    name_model(run, model)
    return run


def name_model(run: RunDirectory, model: Path) -> None:
    run.run_file.write_text(RUN_FILE.replace("path: model\n", f"path: {model}\n"))


def _trainer(run: RunDirectory, step: int) -> str:
    return str(run.checkpoint(step) / "trainer")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    return make_run(tmp_path_factory.mktemp("export"), "qwen2-tied")


@pytest.fixture
def run(made: RunDirectory, tmp_path: Path) -> RunDirectory:
    """A copy, to be broken."""
    shutil.copytree(made.path, tmp_path / "run")
    return RunDirectory(tmp_path / "run")


def exported(run: RunDirectory, out: Path, **changes: Any) -> Exported:
    return export(run, **{"step": None, "out": out, "dtype": None, "verify": False, **changes})


def ebbtide(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "launchers", *words], capture_output=True, text=True, check=False)


def test_the_newest_step_is_the_final_model_file_by_file(run: RunDirectory, tmp_path: Path) -> None:
    found = exported(run, tmp_path / "a" / "v1.5", verify=True)
    assert (found.step, found.dtype, found.num_files) == (4, "float32", 1)
    written = {path.name: path.read_bytes() for path in found.directory.iterdir()}
    assert written == {path.name: path.read_bytes() for path in run.hf_model.iterdir()}
    assert os.listdir(tmp_path / "a") == ["v1.5"]


def test_a_step_that_is_named_and_another_precision(run: RunDirectory, tmp_path: Path) -> None:
    early = load_file(exported(run, tmp_path / "early", step=2).directory / "model.safetensors")
    final = load_file(run.hf_model / "model.safetensors")
    assert any(not torch.equal(early[name], final[name]) for name in final)
    packed = exported(run, tmp_path / "packed", dtype=PRECISIONS["fp8"], verify=True)
    assert packed.num_bytes < 0.6 * exported(run, tmp_path / "whole").num_bytes
    short = exported(run, tmp_path / "short", dtype=torch.bfloat16, verify=True)
    rounded = load_file(short.directory / "model.safetensors")
    assert all(torch.equal(rounded[name], final[name].bfloat16()) for name in final)
    assert json.loads((short.directory / "config.json").read_text())["dtype"] == short.dtype == "bfloat16"


def test_the_command(run: RunDirectory, tmp_path: Path) -> None:
    done = ebbtide("export", str(run.path), str(tmp_path / "out"), "--step", "2", "--verify")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"written: {tmp_path}/out, the model after step 2 (float32, 1 file, ")
    again = ebbtide("export", str(run.path), str(tmp_path / "out"))
    assert again.returncode == 2
    wanted = f"found {tmp_path}/out, which is there already; wanted a new folder: choose another name, or remove it\n"
    assert again.stderr == wanted


def test_adapters_are_those_of_a_run_that_trained_some(run: RunDirectory, tmp_path: Path) -> None:
    with pytest.raises(Wrong) as caught:
        exported(run, tmp_path / "out", adapters=True)
    assert caught.value.found == f"{run.path}, a run without train.lora"
    with pytest.raises(Wrong, match="found fp8 for adapters; wanted bfloat16 or float32"):
        exported(run, tmp_path / "out", adapters=True, dtype=PRECISIONS["fp8"])
    assert not (tmp_path / "out").exists()


def test_adapters_want_the_model_that_they_belong_to(run: RunDirectory, tmp_path: Path) -> None:
    """The run's own copy of the model has them merged already."""
    text = run.run_file.read_text().replace("  lr: 1e-6\n", "  lr: 1e-6\n  lora: {rank: 4}\n")
    run.run_file.write_text(re.sub(r"path: .*/model\n", f"path: {tmp_path}/gone\n", text, count=1))
    assert (run.hf_model / "config.json").is_file()
    for alone in (False, True):
        with pytest.raises(Wrong) as caught:
            exported(run, tmp_path / "out", adapters=alone)
        assert (caught.value.found, caught.value.wanted) == (
            f"no model at {tmp_path}/gone",
            "the model that has the adapters",
        )


def cut(run: RunDirectory) -> None:
    file = next((run.checkpoint(4) / "trainer").glob("*.distcp"))
    file.write_bytes(file.read_bytes()[:-1])


def flip(run: RunDirectory) -> None:
    file = next((run.checkpoint(4) / "trainer").glob("*.distcp"))
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def without_manifest(run: RunDirectory) -> None:
    (run.checkpoint(4) / "manifest.json").unlink()


def without_metadata(run: RunDirectory) -> None:
    (run.checkpoint(4) / "trainer" / ".metadata").unlink()


@pytest.mark.parametrize(
    ("broken", "problem"),
    [
        (cut, "the manifest says"),
        (flip, "is damaged: its checksum differs"),
        (without_manifest, "it has no manifest"),
        (without_metadata, "trainer/.metadata is missing"),
    ],
)
def test_a_damaged_checkpoint_is_refused_with_the_other_steps(
    run: RunDirectory, tmp_path: Path, broken: Any, problem: str
) -> None:
    broken(run)
    with pytest.raises(Wrong, match=rf"step_000004, which is damaged: .*{problem}.*choose with --step: 2$"):
        exported(run, tmp_path / "out")
    assert exported(run, tmp_path / "out", step=2).step == 2


def test_the_steps_that_exist_are_listed(run: RunDirectory, tmp_path: Path) -> None:
    with pytest.raises(Wrong, match=r"found no checkpoint of step 3 in .*wanted one of the steps 2, 4: choose"):
        exported(run, tmp_path / "out", step=3)
    shutil.rmtree(run.checkpoints)
    with pytest.raises(Wrong, match=r"found no checkpoint in .*wait for its first"):
        exported(run, tmp_path / "out")


def test_a_full_disk_leaves_nothing(run: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "there").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(new_directory.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
        with pytest.raises(Wrong, match=r"found 0.00 GiB free in .*wanted .* for the weights: make room"):
            exported(run, tmp_path / "there" / "out")

    def full(writer: ModelWriter, name: str, tensor: torch.Tensor) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ModelWriter, "write", full)
    with pytest.raises(Wrong, match=r"no space left in .*there; wanted room for the weights"):
        exported(run, tmp_path / "there" / "out")
    assert os.listdir(tmp_path / "there") == []


def test_a_checkpoint_that_the_run_removes_meanwhile_is_told(
    run: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(new_directory, "refuse_full", lambda *_: shutil.rmtree(run.checkpoint(4)))
    with pytest.raises(Wrong, match="step_000004, which the run removed meanwhile"):
        exported(run, tmp_path / "out")


def test_a_folder_that_appears_meanwhile_stays_as_it_is(
    run: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def appear(*_: Any) -> None:
        (tmp_path / "there" / "out").mkdir()
        (tmp_path / "there" / "out" / "mine").write_text("kept")

    monkeypatch.setattr(new_directory, "refuse_full", appear)
    with pytest.raises(Wrong, match="out, which is there already; wanted a new folder"):
        exported(run, tmp_path / "there" / "out")
    assert [str(path.relative_to(tmp_path)) for path in (tmp_path / "there").rglob("*")] == [
        "there/out",
        "there/out/mine",
    ]


def test_what_was_written_wrongly_is_found(run: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = ModelWriter.write

    def wrong(writer: ModelWriter, name: str, tensor: torch.Tensor) -> None:
        right(writer, name, tensor + 1e-3 if name == "model.norm.weight" else tensor)

    monkeypatch.setattr(ModelWriter, "write", wrong)
    with pytest.raises(Wrong, match=r"found another model\.norm\.weight in .* than the one that it was"):
        exported(run, tmp_path / "out", verify=True)
    assert not (tmp_path / "out").exists()


def test_a_model_that_is_gone_is_replaced_by_the_runs_own(run: RunDirectory, tmp_path: Path) -> None:
    name_model(run, tmp_path / "gone")
    assert exported(run, tmp_path / "out").step == 4
    shutil.rmtree(run.hf_model)
    with pytest.raises(Wrong, match=rf"found no model at {tmp_path}/gone; wanted config.json and tokenizer"):
        exported(run, tmp_path / "other")


# exports a first model, which imports everything, and then a second within the memory that is given
CAPPED = """
import resource, sys
from pathlib import Path

import torch
from core.run_dir.run_directory import RunDirectory
from launchers.transfer.export import export

def data_bytes():
    return next(int(x.split()[1]) * 1024 for x in open("/proc/self/status") if x.startswith("VmData"))

small, large, out, cap, model_bytes = sys.argv[1:]
torch.set_num_threads(1)
export(RunDirectory(Path(small)), None, Path(out) / "small", None, verify=True)
limit = data_bytes() + int(cap)
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
try:
    torch.empty(int(model_bytes), dtype=torch.uint8)
except RuntimeError:
    print("the whole model does not fit")
export(RunDirectory(Path(large)), None, Path(out) / "large", None, verify=True)
print("exported")
"""


@pytest.mark.slow
def test_a_model_of_ten_times_the_memory_is_exported(made: RunDirectory, tmp_path: Path) -> None:
    """The cap is on what the process takes beyond its imports; the largest parameter is a 68th of the model."""
    sizes = {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 36, "head_dim": 64}
    run = make_run(tmp_path, "qwen3", **sizes)
    model_bytes = (run.hf_model / "model.safetensors").stat().st_size
    words = [str(made.path), str(run.path), str(tmp_path), str(model_bytes // 10), str(model_bytes)]
    code = textwrap.dedent(CAPPED)
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["the whole model does not fit", "exported"], done.stderr[-2000:]
    assert (tmp_path / "large/model.safetensors").read_bytes() == (run.hf_model / "model.safetensors").read_bytes()
