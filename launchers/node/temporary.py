"""The temporary folder of a node's processes: their own, closed to other users, and gone with them.

Libraries take the node's, where the user's umask decides who else gets in: under one that shares files with a group,
the group may write to the sockets through which SGLang's processes send each other pickles, and to torch's compiled
code. SGLang leaves its files behind, too. An agent that is killed leaves the folder; whoever comes next on that node
removes it, and the shared memory that its note names. Who is alive holds a lock in its own, which the kernel takes
from the dead.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from launchers.node.holdings import remove_in_transit, remove_named_after, remove_noted

PREFIX = "ebbtide-"
MAX_LENGTH = 74  # what the kernel allows in a socket's path, less what torch and multiprocessing add
ALIVE = ".alive"
COMPILED = "TORCHINDUCTOR_CACHE_DIR"


@contextmanager
def own_temporary_folder(scratch: Path | None = None) -> Iterator[Path]:
    """TMPDIR of every process that is started meanwhile. Compiled code stays on the node, for the next run.

    Args:
        scratch: where the folder is made; None, or a directory that this node cannot use: the node's own TMPDIR.
    """
    common = common_folder(scratch)
    base = base_folder(common)
    before = {name: os.environ.get(name) for name in ("TMPDIR", COMPILED)}
    with tempfile.TemporaryDirectory(prefix=PREFIX, dir=base, ignore_cleanup_errors=True) as name:
        lock = (Path(name) / f"{ALIVE}.new").open("w")
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write(socket.gethostname())
        lock.flush()
        Path(lock.name).rename(Path(name) / ALIVE)  # nobody ever sees it without its lock
        remove_what_dead_ones_left(base)
        os.environ["TMPDIR"] = name
        os.environ.setdefault(COMPILED, str(closed_folder(common / f"{PREFIX}compiled-{os.geteuid()}") or name))
        try:
            yield Path(name)
        finally:
            _restore(before)
            lock.close()


def common_folder(scratch: Path | None = None) -> Path:
    """The folder of the node that all its users share."""
    usable = scratch is not None and os.access(scratch, os.W_OK | os.X_OK)  # if not, the gate says what is wrong
    return scratch if scratch is not None and usable else Path(tempfile.gettempdir())


def base_folder(common: Path) -> Path:
    """The folder in which agents make theirs: the common one, unless its path is too long for sockets."""
    added = len(f"/{PREFIX}") + 8
    return common if len(str(common)) + added <= MAX_LENGTH else Path("/tmp")


def remove_what_dead_ones_left(base: Path) -> list[Path]:
    """Remove the folders of this user's agents that were killed on this node, and their shared memory.

    One without a lock's file is not known to be dead; one of another node, in a folder that both see, is that node's.

    Returns:
        what was removed.
    """
    removed = []
    for alive in base.glob(f"{PREFIX}*/{ALIVE}"):
        with suppress(OSError):  # another user's, locked by a living one, or just being removed
            if alive.lstat().st_uid != os.geteuid():
                continue
            with alive.open() as file:
                if file.read() not in ("", socket.gethostname()):
                    continue
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                sent = remove_in_transit(since=alive.lstat().st_mtime)
                removed += [*remove_noted(alive.parent), *sent, *remove_named_after(alive.parent), alive.parent]
                shutil.rmtree(alive.parent, ignore_errors=True)
    return removed


def closed_folder(path: Path) -> Path | None:
    """A folder of this user's that nobody else may enter, made if it is not there; None if another has that name."""
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        return None
    path.chmod(0o700)
    return path


def _restore(variables: dict[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
