"""Python as on a login node: only what `pip install ebbtide` brings can be imported. Run ahead of a command."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from types import ModuleType


def required(distribution: str, found: set[str] | None = None) -> set[str]:
    """A distribution and all that it requires, without extras."""
    found = set() if found is None else found
    name = re.sub(r"[-_.]+", "-", distribution).lower()
    if name in found:
        return found
    found.add(name)
    try:
        lines = requires(distribution) or []
    except PackageNotFoundError:
        return found
    for line in lines:
        if "extra ==" not in line:
            required(re.split(r"[^A-Za-z0-9_.-]", line.strip(), maxsplit=1)[0], found)
    return found


class NotInstalled(MetaPathFinder):
    """Refuses the top-level modules of all other distributions."""

    def __init__(self) -> None:
        allowed = required("ebbtide")
        self.refused = {
            top
            for top, owners in packages_distributions().items()
            if not {re.sub(r"[-_.]+", "-", owner).lower() for owner in owners} & allowed
        } | {"torch"}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] in self.refused:
            raise ModuleNotFoundError(f"not on a login node: {fullname}", name=fullname)
        return None


sys.meta_path.insert(0, NotInstalled())
