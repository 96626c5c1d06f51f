"""Run a command as an ordinary user who can read this project and its Python: `python -m … UID COMMAND...`, as root.

Folders that are closed to others, as /root is, are opened in a mount namespace that only the command sees: an empty
folder in the place of each, in which only what is needed is there.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from core.sandbox import kernel
from core.sandbox.kernel import BIND, NEWNS, RECURSIVE, SLAVE

ROOT = Path(__file__).resolve().parents[2]


def closed_folder(path: Path) -> Path | None:
    """The first folder on the way to a path that others may not enter."""
    return next((one for one in [*reversed(path.parents), path] if not one.stat().st_mode & 0o001), None)


def open_way(needed: list[Path]) -> None:
    """Let everybody reach these folders, in a mount namespace of this process's own."""
    kernel.unshare(NEWNS)
    kernel.mount("none", "/", flags=RECURSIVE | SLAVE)
    closed: dict[Path, list[Path]] = {}
    for path in needed:
        if (folder := closed_folder(path)) is not None:
            closed.setdefault(folder, []).append(path)
    for folder, paths in closed.items():
        kept = [(path, tempfile.mkdtemp(prefix="ebbtide-test-way-", dir="/tmp")) for path in paths]
        for path, place in kept:
            kernel.mount(str(path), place, flags=BIND | RECURSIVE)
        kernel.mount("none", str(folder), "tmpfs", options="mode=755")
        for path, place in kept:
            path.mkdir(parents=True, exist_ok=True)
            kernel.mount(place, str(path), flags=BIND | RECURSIVE)
            kernel.unmount(place)
            os.rmdir(place)


def main() -> None:
    """Become the user, and the command."""
    user = int(sys.argv[1])
    open_way([Path(sys.base_prefix), ROOT, *({Path(sys.prefix)} - {ROOT / ".venv"})])
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    os.environ["HOME"] = "/tmp"
    os.execv(sys.argv[2], sys.argv[2:])


if __name__ == "__main__":
    main()
