"""Weights through files: what the engines of other hosts find, and what happens if one dies over it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file

from core.sglang.errors import EngineDied
from core.weights import files as weight_files
from core.weights.files import WeightFiles
from core.weights.sync import WeightSync
from tests.support.fake_engines import FakeEngines
from tests.support.good_run import SHAPE, write_model
from tests.support.waiting import COMMAND_S

TENSORS = {f"layer{i}": torch.full((4,), float(i)) for i in range(3)}


class Source:
    """Two buckets, the tensors of the first being views of one buffer, as a trainer's are."""

    def named_buckets(self, max_bytes: int) -> Iterator[list[tuple[str, torch.Tensor]]]:
        flat = torch.cat([TENSORS["layer0"], TENSORS["layer1"]])
        yield [("layer0", flat[:4]), ("layer1", flat[4:])]
        yield [("layer2", TENSORS["layer2"])]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Where the files go; the group of one rank is up."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    write_model(tmp_path / "model", SHAPE, tie_word_embeddings=False)
    yield tmp_path / "sync"
    dist.destroy_process_group()


def sync_by_files(engines: Any, folder: Path) -> WeightSync:
    return WeightSync(Source(), engines, [WeightFiles(engines, folder, folder.with_name("model"))])


def test_engines_of_other_hosts_find_all_weights_in_a_new_folder_each_time(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Path] = []

    def read(client: Any, directory: Path, version: str) -> None:
        assert (directory / "config.json").exists()
        read_back = {name: t for path in directory.glob("*.safetensors") for name, t in load_file(path).items()}
        assert {name: t.tolist() for name, t in read_back.items()} == {n: t.tolist() for n, t in TENSORS.items()}
        found.append(directory)

    monkeypatch.setattr(weight_files, "update_from_disk", read)
    engines: Any = FakeEngines({"a": "there", "b": "elsewhere"})
    (folder / "step0.1").mkdir(parents=True)  # left by a killed attempt
    sync = sync_by_files(engines, folder)
    assert [sync.push("step1"), sync.push("step1"), sync.push("step2")] == [True, False, True]
    assert [engine.weight_version for engine in engines.alive()] == ["step2", "step2"]
    assert len(found) == 4
    assert len(set(found)) == 2
    assert not folder.exists()


def test_an_engine_that_dies_over_it_is_out_and_the_others_go_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(client: Any, directory: Path, version: str) -> None:
        if len(died) == 0:
            died.append(version)
            raise EngineDied("gone")

    died: list[str] = []
    monkeypatch.setattr(weight_files, "update_from_disk", read)
    engines: Any = FakeEngines({"a": "there", "b": "there"})
    assert sync_by_files(engines, folder).push("step1")
    assert sorted(str(engine.weight_version) for engine in engines.engines) == ["None", "step1"]
    assert len(engines.alive()) == 1


def test_a_full_disk_is_explained(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import safetensors.torch

    def full(*_: Any) -> None:
        raise RuntimeError("No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    engines: Any = FakeEngines({"a": "there"})
    with pytest.raises(OSError, match=r"cannot be written to .*No space left on device; wanted room for one copy"):
        sync_by_files(engines, folder).push("step1")


def test_without_engines_for_it_nothing_is_written(folder: Path) -> None:
    engines: Any = FakeEngines({})
    files = WeightFiles(engines, folder, folder.with_name("model"))
    delivery = files.open([], "step1")
    delivery.post([("layer0", TENSORS["layer0"])])
    delivery.close()
    assert not folder.exists()


def test_ranks_wait_for_the_folder_for_all_files_and_for_all_engines(tmp_path: Path) -> None:
    """Of two ranks one dawdles; each has written one of the two files, and has an engine that reads both."""
    write_model(tmp_path, SHAPE, tie_word_embeddings=False)
    main = Path(__file__).parents[2] / "support" / "files_rank_main.py"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(main)]
    done = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, timeout=COMMAND_S)
    assert done.returncode == 0, done.stderr
    both = [["model-00000.safetensors", "model-00001.safetensors"]]
    for rank in range(2):
        found = json.loads((tmp_path / f"rank{rank}.json").read_text())
        assert found == {"folder": both, "file": both, "engine": both}
    assert not (tmp_path / "sync").exists()
