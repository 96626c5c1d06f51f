"""Weights for engines on other hosts: through files of the run directory, which every node sees.

An engine on a driver's own host is given tensors in shared memory; to another host that does not reach. There the ranks
write the weights together, each every n-th bucket of a sync, the engines read them, and the files go.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch.distributed as dist
from torch import Tensor

from core.collective import any_rank, broadcast
from core.engines import Engine
from core.sglang.errors import EngineDied
from core.sglang.weights import update_from_disk

NamedBucket = list[tuple[str, Tensor]]


class WeightFiles:
    """The files of one sync at a time. Collective: all trainer ranks call `written`, to its end, and `remove`."""

    def __init__(self, folder: Path, model_dir: Path, host: str) -> None:
        """Args:
        folder: of this run only; on a file system that all nodes share.
        model_dir: the HuggingFace directory that the engines were started from.
        host: this rank's, as engines on it are published.
        """
        self._folder = folder
        self._model_dir = model_dir
        self._host = host
        self._current = folder

    def needed_by(self, engine: Engine) -> bool:
        """Whether the engine is on another host."""
        return engine.member.host != self._host

    def written(self, buckets: Iterator[NamedBucket], version: str) -> Iterator[NamedBucket]:
        """The same buckets; each is also in a file by the time the next is asked for, and all of all ranks at the end.

        Collective: all trainer ranks.
        """
        self._begin(version)
        for number, bucket in enumerate(buckets):
            if number % dist.get_world_size() == dist.get_rank():
                self._write(self._current / f"model-{number:05d}.safetensors", bucket)
            yield bucket
        any_rank(False)

    def _begin(self, version: str) -> None:
        """Make a new folder; its name was never used, so that no node remembers an older one."""
        self._current = self._folder / broadcast(f"{version}.{time.time_ns()}")
        if dist.get_rank() == 0:
            shutil.rmtree(self._folder, ignore_errors=True)  # what a killed attempt left
            self._current.mkdir(parents=True)
            shutil.copyfile(self._model_dir / "config.json", self._current / "config.json")
        any_rank(False)  # nobody writes before the folder is there

    def _write(self, path: Path, bucket: NamedBucket) -> None:
        from safetensors.torch import save_file

        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in bucket}
        try:
            save_file(tensors, path, {"format": "pt"})
        except Exception as error:  # safetensors has an exception of its own for a full disk
            raise OSError(
                f"weights for engines on other nodes cannot be written to {path}: {error}; wanted room for one copy of "
                f"the model in {self._folder}: make room, or put engines only on the trainers' nodes"
            ) from error

    def load(self, engines: list[Engine], version: str) -> list[tuple[Engine, EngineDied]]:
        """Have engines read the files, all at the same time. Not collective.

        Returns:
            those that died over it.
        """
        if not engines:
            return []
        with ThreadPoolExecutor(len(engines)) as threads:
            outcomes = threads.map(lambda engine: self._load_one(engine, version), engines)
            return [(engine, error) for engine, error in zip(engines, outcomes, strict=True) if error is not None]

    def remove(self) -> None:
        """Drop the files, once every rank's engines have read them."""
        any_rank(False)
        if dist.get_rank() == 0:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _load_one(self, engine: Engine, version: str) -> EngineDied | None:
        try:
            update_from_disk(engine.client, self._current, version)
        except EngineDied as error:
            return error
        return None
