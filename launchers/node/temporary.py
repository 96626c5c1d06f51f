"""The temporary folder of a node's processes: their own, closed to other users, and gone with them.

Libraries take the node's, where the user's umask decides who else gets in: under one that shares files with a group,
the group may write to the sockets through which SGLang's processes send each other pickles, and to torch's compiled
code. SGLang leaves its files behind, too. Left out: an agent that is killed leaves the folder.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = "ebbtide-"
MAX_LENGTH = 74  # what the kernel allows in a socket's path, less what torch and multiprocessing add
COMPILED = "TORCHINDUCTOR_CACHE_DIR"


@contextmanager
def own_temporary_folder(scratch: Path | None = None) -> Iterator[Path]:
    """TMPDIR of every process that is started meanwhile. Compiled code stays on the node, for the next run.

    Args:
        scratch: where the folder is made; None, or a directory that this node cannot use: the node's own TMPDIR.
    """
    usable = scratch is not None and os.access(scratch, os.W_OK | os.X_OK)  # if not, the gate says what is wrong
    common = scratch if scratch is not None and usable else Path(tempfile.gettempdir())
    added = len(f"/{PREFIX}") + 8
    base = common if len(str(common)) + added <= MAX_LENGTH else Path("/tmp")
    before = {name: os.environ.get(name) for name in ("TMPDIR", COMPILED)}
    with tempfile.TemporaryDirectory(prefix=PREFIX, dir=base, ignore_cleanup_errors=True) as name:
        os.environ["TMPDIR"] = name
        os.environ.setdefault(COMPILED, str(closed_folder(common / f"{PREFIX}compiled-{os.geteuid()}") or name))
        try:
            yield Path(name)
        finally:
            _restore(before)


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
