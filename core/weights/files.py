"""Weights for engines with GPUs of their own, if the run file says so: files of the run directory, which all nodes see.

The ranks write the weights together, each every n-th bucket of a sync, the engines read them, and the files go.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch.distributed as dist

from core.engines.roster import Engine, Engines
from core.pretrained.packing import Packing
from core.pretrained.safetensors_file import save_tensors
from core.pretrained.side_files import write_quantisation
from core.pretrained.weight_files import write_index
from core.processes.collective import any_rank, broadcast
from core.sglang.errors import EngineDied
from core.sglang.payload import NamedTensors
from core.sglang.weights import Checksums, update_from_disk


class WeightFiles:
    """The files of one sync at a time. Collective: all trainer ranks call `open` and what it gives."""

    def __init__(self, registry: Engines, folder: Path, model_dir: Path, packing: Packing | None = None) -> None:
        """Keep the folders.

        Args:
        folder: of this run only; on a file system that all nodes share.
        model_dir: the HuggingFace directory that the engines were started from.
        packing: what engines have in few bits; None: nothing.
        """
        self._registry = registry
        self._folder = folder
        self._model_dir = model_dir
        self._packing = packing

    def takes(self, engine: Engine) -> bool:
        """Any engine that sees the folder, so all of them."""
        del engine
        return True

    def open(self, engines: Sequence[Engine], version: str) -> FilesDelivery | NoFiles:
        """Make a new folder; its name was never used, so that no node remembers an older one."""
        if not any_rank(bool(engines)):
            return NoFiles()
        current = self._folder / broadcast(f"{version}.{time.time_ns()}")
        if dist.get_rank() == 0:
            shutil.rmtree(self._folder, ignore_errors=True)  # what a killed attempt left
            current.mkdir(parents=True)
            shutil.copyfile(self._model_dir / "config.json", current / "config.json")
            if self._packing is not None:
                write_quantisation(current, self._packing.settings())
        any_rank(False)  # nobody writes before the folder is there
        return FilesDelivery(self._registry, engines, version, current)


class NoFiles:
    """A sync in which no rank has an engine that reads files."""

    loaded: Sequence[tuple[Engine, Checksums]] = ()

    def post(self, tensors: NamedTensors) -> None:
        """Nobody reads it."""

    def close(self) -> None:
        """There is nothing to wait for."""


class FilesDelivery:
    """One version on its way through a folder. Collective: all trainer ranks call both."""

    def __init__(self, registry: Engines, engines: Sequence[Engine], version: str, folder: Path) -> None:
        """Begin a delivery; no file is written yet.

        Args:
        folder: of this sync, within the one of the run, which goes with it.
        """
        self._registry = registry
        self._engines = engines
        self._version = version
        self._folder = folder
        self._num_posted = 0
        self._places: dict[str, str] = {}  # tensor -> file, of all ranks
        self._num_bytes = 0
        self.loaded: Sequence[tuple[Engine, Checksums]] = ()  # by this rank's engines, once it is closed

    def post(self, tensors: NamedTensors) -> None:
        """Write the bucket, if it is this rank's turn."""
        file = f"model-{self._num_posted:05d}.safetensors"
        if self._num_posted % dist.get_world_size() == dist.get_rank():
            self._write(self._folder / file, tensors)
        self._num_posted += 1
        self._places |= {name: file for name, _ in tensors}
        self._num_bytes += sum(tensor.nbytes for _, tensor in tensors)

    def close(self) -> None:
        """Have the engines read the files once all are there, all at the same time; then remove the files."""
        if dist.get_rank() == 0:
            write_index(self._folder, self._places, self._num_bytes)
        any_rank(False)
        with ThreadPoolExecutor(max(1, len(self._engines)), "weight-files") as threads:
            self.loaded = [one for one in threads.map(self._load, self._engines) if one is not None]
        any_rank(False)
        if dist.get_rank() == 0:
            shutil.rmtree(self._folder.parent, ignore_errors=True)

    def _write(self, path: Path, bucket: NamedTensors) -> None:
        try:
            save_tensors(bucket, path)
        except Exception as error:  # safetensors has an exception of its own for a full disk
            raise OSError(
                f"weights for the engines cannot be written to {path}: {error}; wanted room for one copy of the model "
                f"in {self._folder.parent}: make room, or set placement.weight_sync to auto and placement.check_sync "
                "to 0"
            ) from error

    def _load(self, engine: Engine) -> tuple[Engine, Checksums] | None:
        try:
            found = update_from_disk(engine.client, self._folder, self._version)
        except EngineDied as error:
            self._registry.mark_dead(engine, error)
            return None
        engine.weight_version = self._version
        return engine, found
