"""What the children of a node's agent hold in /dev/shm, noted when it is seen: killed, they cannot take it away.

The note lies in the agent's temporary folder, for whoever comes next on this node if the agent is killed, too. What was
made since the last look is known by its name: of a process that is dead, or of an engine of this agent's folder
(`core/sglang/engine_site/ebbtide_engine_server.py`).
"""

from __future__ import annotations

import glob
import json
import math
import os
import re
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from common.files import write_atomically
from core.processes.children import SHARED_MEMORY, Child, shared_memory

NOTE = "shared-memory.json"
LOOK_S = 2.0
# a tensor on its way to another process, by the pid of its sender; what SGLang's processes share, by that of its maker
IN_TRANSIT = re.compile(r"torch_(\d+)_\d+_\d+|sgl_shm_[a-z0-9_]+_(\d+)_[0-9a-f]{8}")


class Holdings:
    """Files in /dev/shm, each with the children that were seen to hold it."""

    def __init__(self, folder: Path) -> None:
        """Begin to note.

        Args:
            folder: the agent's temporary folder.
        """
        self._folder, self._note = folder, folder / NOTE
        self._held: dict[Path, set[int]] = {}
        self._seen: set[str] = set()  # names that were there at the last look
        self._looked = -math.inf  # monotonic
        self._began = time.time()

    def look(self, children: Sequence[Child], interval_s: float = LOOK_S) -> None:
        """Note what there is, unless the last look was less than an interval ago, or nothing is new since."""
        if time.monotonic() < self._looked + interval_s:
            return
        self._looked = time.monotonic()
        names = set(os.listdir(SHARED_MEMORY))
        if not names <= self._seen:
            for child in children:
                for path in shared_memory(child.pid):
                    self._held.setdefault(path, set()).add(child.pid)
        gone = {path for path in self._held if path.name not in names and not path.exists()}
        for path in gone:
            del self._held[path]
        if gone or not names <= self._seen:
            self._write()
        self._seen = names

    def remove_of(self, dead: Child, living: Sequence[Child]) -> None:
        """Remove what a child that has ended had, and no other child holds."""
        its = [path for path, pids in self._held.items() if dead.pid in pids]
        in_use = {path for child in living for path in shared_memory(child.pid)} if its else set()
        for path in its:
            self._held[path].discard(dead.pid)
            if path not in in_use:
                path.unlink(missing_ok=True)
                del self._held[path]
        if its:
            self._write()
        remove_in_transit(self._began)

    def remove_all(self) -> None:
        """Remove everything; the children have ended."""
        for path in self._held:
            path.unlink(missing_ok=True)
        self._held.clear()
        remove_in_transit(self._began)
        remove_named_after(self._folder)

    def _write(self) -> None:
        identified = {}
        for path in self._held:
            with suppress(OSError):
                identified[str(path)] = path.stat().st_ino
        with suppress(OSError):  # without room the next one on this node finds less
            write_atomically(self._note, json.dumps(identified))


def remove_in_transit(since: float) -> list[Path]:
    """Remove tensors of this user that were sent after `since`, Unix seconds, by a process that is no more.

    They lie there for an instant, mostly too short for a look: who is killed amid it leaves them without an owner.

    Returns:
        what was removed.
    """
    removed = []
    for name in os.listdir(SHARED_MEMORY):
        sender, path = IN_TRANSIT.fullmatch(name), Path(SHARED_MEMORY, name)
        if sender is None:
            continue
        with suppress(OSError):
            found = path.lstat()
            if found.st_uid != os.geteuid() or found.st_ctime < since:
                continue
            if not Path("/proc", sender[sender.lastindex or 1]).exists():
                path.unlink()
                removed.append(path)
    return removed


def remove_named_after(folder: Path) -> list[Path]:
    """Remove what engines with this temporary folder, which have ended, have named after it; what was removed."""
    removed = []
    for path in Path(SHARED_MEMORY).glob(f"sglang_loads_{glob.escape(folder.name)}-*"):
        with suppress(OSError):
            if path.lstat().st_uid == os.geteuid():
                path.unlink()
                removed.append(path)
    return removed


def remove_noted(folder: Path) -> list[Path]:
    """Remove what a dead agent's note names, and is still the same file and this user's; what was removed."""
    try:
        noted = json.loads((folder / NOTE).read_text())
    except (OSError, ValueError):
        return []
    removed = []
    for name, inode in noted.items():
        path = Path(name)
        with suppress(OSError):
            found = path.lstat()
            if str(path.parent) == SHARED_MEMORY and (found.st_ino, found.st_uid) == (inode, os.geteuid()):
                path.unlink()
                removed.append(path)
    return removed
