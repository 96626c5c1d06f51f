"""Ordinary users of a test cluster: their names, their homes, and a way for them to this program. Decides only.

Nodes know them by a passwd file of the cluster's own. Where interpreter, packages or repository lie in a folder that
only root may enter, the nodes see an open one in its place, with nothing in it but these; the real one stays as it is.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pydantic

FIRST_UID = 60100  # and the first gid: in no distribution's range for people or services
MAX_PEOPLE = 10
GROUP = "people"
ENTER, LIST = 0o001, 0o004
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Person:
    """A user. All of a cluster are in one group, as on many; others may look into each other's homes."""

    name: str
    uid: int
    gid: int
    home: Path

    @property
    def passwd(self) -> str:
        """A line of /etc/passwd."""
        return f"{self.name}:x:{self.uid}:{self.gid}::{self.home}:/bin/bash\n"

    def switch(self, variables: Mapping[str, str]) -> list[str]:
        """What a command of root begins with to run as this user, at home, with no variable of root's but PATH."""
        ids = [f"--reuid={self.uid}", f"--regid={self.gid}", "--clear-groups"]
        own = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "HOME": str(self.home), "USER": self.name}
        words = [f"{key}={value}" for key, value in {**own, "LOGNAME": self.name, **variables}.items()]
        return ["setpriv", *ids, "--", "env", "--ignore-environment", f"--chdir={self.home}", *words]


def people(folder: Path, index: int, count: int) -> tuple[Person, ...]:
    """The first `count` users of the cluster with this index; no two clusters of a machine share one."""
    if count > MAX_PEOPLE:
        raise ValueError(f"found {count} people, wanted at most {MAX_PEOPLE}")
    first = FIRST_UID + MAX_PEOPLE * index
    names = [f"person{number}" for number in range(1, count + 1)]
    return tuple(Person(name, first + k, first, folder / "home" / name) for k, name in enumerate(names))


def left_in(folder: Path, users: Iterable[Person]) -> list[Path]:
    """What these users have in a folder."""
    uids = {person.uid for person in users}
    return [path for path in folder.iterdir() if path.lstat().st_uid in uids]


def sweep(users: Sequence[Person]) -> None:
    """Remove what they left on this machine, in this cluster or in one of the same number before it."""
    for path in (*left_in(Path("/tmp"), users), *left_in(Path("/dev/shm"), users)):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def needed() -> set[Path]:
    """What a Python process of ours reads: repository, interpreter and packages, each by all of its names."""
    entries = {Path(entry) for entry in sys.path if entry} | {ROOT, Path(sys.prefix), Path(sys.base_prefix)}
    link = Path(sys.executable)
    while link.is_symlink():  # .venv/bin/python is one, and often what it points to
        entries.add(link.parent)
        link = link.parent / os.readlink(link)
    return {name for entry in entries if entry.exists() for name in (entry.absolute(), entry.resolve())}


def hidden() -> Path | None:
    """A file that others may not read, wherever it is shown: then no ordinary user can run this program."""
    samples = (Path(__file__), Path(sys.executable).resolve(), Path(os.__file__), Path(pydantic.__file__))
    return next((path for path in samples if not path.stat().st_mode & LIST), None)


@dataclass(frozen=True)
class Opening:
    """A folder that is closed to others, and what of it they need."""

    closed: Path
    shown: tuple[Path, ...]

    @property
    def line(self) -> str:
        """For people.sh: paths with a tab between them."""
        return "\t".join(map(str, (self.closed, *self.shown))) + "\n"


def openings(paths: Iterable[Path]) -> list[Opening]:
    """The outermost closed folders above these paths. A path that is closed itself is shown by its entries."""
    shown: dict[Path, list[Path]] = {}
    for path in _outermost(paths):
        closed = next((folder for folder in (*reversed(path.parents), path) if not _is_open(folder, ENTER)), None)
        if closed is not None:
            shown.setdefault(closed, []).extend([path] if _is_open(path, ENTER | LIST) else sorted(path.iterdir()))
    return [Opening(closed, tuple(found)) for closed, found in sorted(shown.items())]


def _outermost(paths: Iterable[Path]) -> list[Path]:
    """Without those inside of others."""
    every = set(paths)
    return sorted(path for path in every if not any(parent in every for parent in path.parents))


def _is_open(path: Path, bits: int) -> bool:
    """Whether others may do this with a folder; a file or link is what its folder lets them see."""
    return path.is_symlink() or not path.is_dir() or path.stat().st_mode & bits == bits
