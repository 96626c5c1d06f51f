"""One of two trainer ranks whose engines read weights from files; the engines are doubles. See test_weight_files.py.

Argument: a folder. Three syncs, in which one thing each is slow: `folder` (rank 0 makes it), `file` (rank 1 writes its
bucket), `engine` (that of rank 1 reads). Writes down which files the engine of this rank found.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).parents[2]))

import safetensors.torch
import torch
import torch.distributed as dist

from core.weights import files as weight_files
from core.weights.files import WeightFiles
from core.weights.sync import WeightSync
from tests.support.fake_engines import FakeEngines

NAP_S = 0.7  # ample for the other rank to go ahead, if nothing holds it


class Source:
    def named_buckets(self, max_bytes: int) -> Any:
        return ([(f"w{number}", torch.full((4,), float(number)))] for number in range(2))


def delayed(act: Callable[..., Any]) -> Callable[..., Any]:
    def late(*arguments: Any, **named: Any) -> Any:
        time.sleep(NAP_S)
        return act(*arguments, **named)

    return late


def sync(folder: Path, slow: str) -> list[list[str]]:
    """Which files the engine of this rank finds, while one of the ranks dawdles."""
    rank, found = dist.get_rank(), []

    def read(client: Any, directory: Path, version: str) -> None:
        time.sleep(NAP_S if (slow, rank) == ("engine", 1) else 0.0)
        found.append(sorted(path.name for path in directory.glob("*.safetensors")))

    engines: Any = FakeEngines({f"e{rank}": "there"})
    with ExitStack() as patches:
        patches.enter_context(mock.patch.object(weight_files, "update_from_disk", read))
        if (slow, rank) == ("folder", 0):
            patches.enter_context(mock.patch.object(shutil, "rmtree", delayed(shutil.rmtree)))
        if (slow, rank) == ("file", 1):
            save_file = delayed(safetensors.torch.save_file)
            patches.enter_context(mock.patch.object(safetensors.torch, "save_file", save_file))
        WeightSync(Source(), engines, [WeightFiles(engines, folder / "sync", folder)]).push(slow)
    return found


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    dist.init_process_group("gloo", timeout=timedelta(seconds=300))
    found = {slow: sync(folder, slow) for slow in ("folder", "file", "engine")}
    (folder / f"rank{dist.get_rank()}.json").write_text(json.dumps(found))
    dist.destroy_process_group()
