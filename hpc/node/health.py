"""How a node is before a run starts on it. No part of the probe waits for ever."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from common.units import MIB
from common.waiting import wait_until
from hpc.node.gpus import Gpu, ask_gpus

POLL_S = 0.2


@dataclass(frozen=True)
class NodeReport:
    """What a node found out about itself.

    Attributes:
        clock_s: seconds since 1970 when the report was made.
        gpus: those that the job may use; empty if not asked for.
        gpu_problem: why they could not be listed; empty if they could.
        free_mib: room in each directory asked for; None: see `problems`.
        problems: what went wrong with a directory, by path.
        canary: what the node read in the leader's file; empty: it did not see it.
    """

    host: str
    clock_s: float
    gpus: tuple[Gpu, ...] = ()
    gpu_problem: str = ""
    free_mib: dict[str, int | None] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    canary: str = ""

    def to_json(self) -> str:
        """The text that goes to the leader."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> NodeReport:
        """The report that `to_json` wrote."""
        values = json.loads(text)
        return cls(**{**values, "gpus": tuple(Gpu(**gpu) for gpu in values["gpus"])})


@dataclass(frozen=True)
class Wanted:
    """What a node must have.

    Attributes:
        gpus: how many; 0: nvidia-smi is not asked.
        max_gpu_used_mib: more than this in use means that somebody else is there, or that something was left behind.
        free_mib: least room by directory (run directory, scratch, /dev/shm); each must also be writable.
        canary: what stands in the leader's file; empty: it is not looked for.
        max_clock_difference_s: from the leader's clock, both ways.
    """

    gpus: int = 0
    max_gpu_used_mib: int = 1024
    free_mib: dict[str, int] = field(default_factory=dict)
    canary: str = ""
    max_clock_difference_s: float = 30.0


def write_canary(path: Path) -> str:
    """Leader: writes the file that all nodes must see, and gives what stands in it."""
    text = secrets.token_hex(8)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return text


def probe_node(wanted: Wanted, canary: Path | None = None, timeout_s: float = 60.0) -> NodeReport:
    """This node's report. Returns after at most about twice `timeout_s`, even where a file system hangs.

    Args:
        wanted: says what to look at; nothing is judged here.
        canary: the leader's file; a network file system may show it late, so it is waited for.
        timeout_s: deadline of nvidia-smi, and of all directories together.
    """
    gpus, gpu_problem = ask_gpus(os.environ.get("CUDA_VISIBLE_DEVICES"), timeout_s) if wanted.gpus else ((), "")
    rooms = {path: _Background(lambda path=path: _room(Path(path))) for path in wanted.free_mib}  # type: ignore[misc]
    seen = _Background(lambda: _await_text(canary, timeout_s)) if canary is not None and wanted.canary else None
    end = time.monotonic() + timeout_s
    results = {path: room.result(end) for path, room in rooms.items()}
    return NodeReport(
        host=socket.gethostname(),
        clock_s=time.time(),
        gpus=gpus,
        gpu_problem=gpu_problem,
        free_mib={path: found if isinstance(found, int) else None for path, found in results.items()},
        problems={path: found for path, found in results.items() if isinstance(found, str)},
        canary=str(seen.result(end + POLL_S, late="")) if seen is not None else "",
    )


def _room(path: Path) -> int | str:
    """MiB free in a directory that can be written to, else what is wrong with it."""
    try:
        with tempfile.TemporaryFile(dir=path) as file:
            file.write(b"x")
            file.flush()
        return shutil.disk_usage(path).free // MIB
    except OSError as error:
        return error.strerror or str(error)


def _await_text(path: Path, timeout_s: float) -> str:
    """What stands in the file, as soon as it is there; empty after the deadline."""
    text = ""

    def is_there() -> bool:
        nonlocal text
        with suppress(OSError, UnicodeDecodeError):
            text = path.read_text(encoding="utf-8")
        return bool(text)

    wait_until(is_there, timeout_s, POLL_S)
    return text


class _Background:
    """A call in a thread that nobody waits for at exit: a hung file system must not hang the probe."""

    def __init__(self, call: Callable[[], int | str]) -> None:
        self._found: list[int | str] = []
        self._thread = threading.Thread(target=lambda: self._found.append(call()), daemon=True)
        self._thread.start()

    def result(self, end: float, late: str = "no answer from its file system") -> int | str:
        """What the call gave; `late` if it has given nothing by `end` (of the monotonic clock)."""
        self._thread.join(max(0.0, end - time.monotonic()))
        return self._found[0] if self._found else late
