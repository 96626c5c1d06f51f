"""What one user of a node gets of another's run: a program for the intruder. Standard library only.

    python intruder.py UID URL FILE [KEY]     prints a JSON object; empty lists and 401 are what the other one wants

It goes by every way that the kernel might leave open: files, processes, sockets, the engine's port.
"""

from __future__ import annotations

import json
import os
import socket
import stat
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


def look(uid: int, url: str, secret: Path, key: str | None) -> dict[str, Any]:
    """Everything that works, by kind; and how much there was to try."""
    processes = [entry for entry in Path("/proc").glob("[0-9]*") if owned(entry, uid)]
    left = [path for folder in ("/tmp", "/dev/shm") for path in below(Path(folder)) if owned(path, uid)]
    sockets = [path for path in left if stat.S_ISSOCK(path.lstat().st_mode)]
    return {
        "processes": len(processes),
        "sockets": len(sockets),
        "files": len(left) - len(sockets),
        "secret": worked(lambda: secret.read_bytes()),
        "listed": worked(lambda: os.listdir(secret.parent)),
        "environments": [e.name for e in processes if worked(lambda e=e: (e / "environ").read_bytes())],
        "memories": [e.name for e in processes if worked(lambda e=e: (e / "mem").open("rb").close())],
        "descriptors": [e.name for e in processes if worked(lambda e=e: os.listdir(e / "fd"))],
        "signalled": [e.name for e in processes if worked(lambda e=e: os.kill(int(e.name), 0))],
        "command_lines": [(e / "cmdline").read_bytes().replace(b"\0", b" ").decode() for e in processes],
        "connected": [str(path) for path in sockets if worked(lambda path=path: connect(path))],
        "read": [str(path) for path in left if path not in sockets and os.access(path, os.R_OK)],
        "written": [str(path) for path in left if path not in sockets and os.access(path, os.W_OK)],
        "answer": answer(url, key),
    }


def below(folder: Path) -> Iterator[Path]:
    """Its entries, and theirs where they are folders that let us in; two levels are where programs leave things."""
    for path in folder.iterdir():
        yield path
        if path.is_dir() and not path.is_symlink() and os.access(path, os.R_OK | os.X_OK):
            yield from path.iterdir()


def owned(path: Path, uid: int) -> bool:
    try:
        return path.lstat().st_uid == uid
    except OSError:
        return False


def worked(attempt: Callable[[], object]) -> bool:
    """Whether the kernel let it pass."""
    try:
        attempt()
    except OSError:
        return False
    return True


def connect(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))


def answer(url: str, key: str | None) -> int:
    """The status of a request to generate."""
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
    body = json.dumps({"input_ids": [5, 6, 7], "sampling_params": {"max_new_tokens": 1}}).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(f"{url}/generate", body, headers), timeout=30) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


if __name__ == "__main__":
    print(json.dumps(look(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), *(sys.argv[4:] or [None]))))  # type: ignore[arg-type]
