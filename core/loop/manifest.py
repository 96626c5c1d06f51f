"""The manifest of a checkpoint: which files it has, and whether they are as they were written. No torch.

An agent and a login node ask whether a checkpoint is whole; only trainer ranks write and read what is in it.
"""

from __future__ import annotations

import json
import logging
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common.files import write_atomically
from core.config.schema import RunConfig
from core.loop.state import LoopState
from core.run_dir.run_directory import RunDirectory

MANIFEST = "manifest.json"
SCHEMA_VERSION = 1
CHUNK_BYTES = 8 * 2**20

log = logging.getLogger(__name__)


def find_latest(folder: Path) -> tuple[Path, LoopState] | None:
    """The newest checkpoint that is whole, and its state; each one that is skipped is logged with the reason."""
    for path in sorted(folder.glob("step_??????"), reverse=True):
        problem, state = inspect_checkpoint(path)
        if state is not None:
            return path, state
        log.warning("skipped checkpoint %s: %s", path, problem)
    return None


def is_complete(directory: RunDirectory, config: RunConfig) -> bool:
    """Whether all steps of a run are done and everything that is written at its end is there."""
    found = find_latest(directory.checkpoints)
    all_steps = found is not None and found[1].next_step >= config.rollout.num_rollout
    return all_steps and (directory.hf_model.exists() or not config.checkpoint.model_at_end)


def write_manifest(folder: Path, state: LoopState) -> None:
    """List every file of the folder with size and checksum; the manifest itself appears whole or not at all."""
    files = {str(path.relative_to(folder)): [path.stat().st_size, _checksum(path)] for path in _files(folder)}
    text = json.dumps({"schema": SCHEMA_VERSION, "state": state.to_dict(), "files": files}, indent=1)
    write_atomically(folder / MANIFEST, text)


def inspect_checkpoint(path: Path) -> tuple[str, LoopState | None]:
    """What is wrong with a checkpoint (empty: nothing), and its state if it is whole."""
    try:
        manifest: dict[str, Any] = json.loads((path / MANIFEST).read_text())
        state = LoopState(**manifest["state"])
        files = manifest["files"].items()
    except FileNotFoundError:
        return "it has no manifest, so it was never finished", None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return f"its manifest cannot be read ({type(error).__name__}: {error})", None
    for name, (size, checksum) in files:
        file = path / name
        if not file.exists():
            return f"{name} is missing", None
        if file.stat().st_size != size:
            return f"{name} has {file.stat().st_size} bytes, the manifest says {size}", None
        if _checksum(file) != checksum:
            return f"{name} is damaged: its checksum differs from the manifest's", None
    return "", state


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(MANIFEST))


def _checksum(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            value = zlib.crc32(chunk, value)
    return value
