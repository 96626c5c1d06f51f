"""Files of the user that a run file names: code is copied into the attempt's folder, data is fingerprinted.

Code is found by its form, `file.py:name` or `package.module:name`, under whatever key: every door takes these forms.
Left out: what the user's code imports, and files of weights.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from common.units import MIB

CODE_FORM = re.compile(r"(?P<place>[^:]+\.py|[A-Za-z_]\w*(?:\.\w+)*):[A-Za-z_]\w*")
DATA_KEYS = ("path", "chat_template")  # of `data` and of each evaluation set
PACKAGE = "package"  # `package:NAME` names a package with weights or rows, not a function
MOST_CODE_BYTES = 4 * MIB
MOST_HASHED_BYTES = 512 * MIB  # of all data together, which takes a second or two


def keep_user_files(settings: Mapping[str, Any], folder: Path) -> list[dict[str, Any]]:
    """Copy the code that `settings` name into `folder`, and say of each file what it was.

    Returns:
        one entry per file: key, path, bytes, modified (seconds since the epoch), sha256 (None: too large), copy (its
        name in `folder`; None: it is data) and, for a file that cannot be read, only key, path and problem.
    """
    left = MOST_HASHED_BYTES
    found: list[dict[str, Any]] = []
    for key, path, is_code in _named_files(settings):
        if any(entry["path"] == str(path) for entry in found):
            continue
        entry: dict[str, Any] = {"key": key, "path": str(path)}
        try:
            size = path.stat().st_size
            hashed = size <= left
            entry |= {"bytes": size, "modified": path.stat().st_mtime, "sha256": sha256(path) if hashed else None}
            left -= size if hashed else 0
            entry["copy"] = _copied(path, folder) if is_code and size <= MOST_CODE_BYTES else None
        except OSError as error:
            entry = {"key": key, "path": str(path), "problem": error.strerror or str(error)}
        found.append(entry)
    return found


def sha256(path: Path) -> str:
    """The fingerprint of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _named_files(settings: Mapping[str, Any]) -> Iterator[tuple[str, Path, bool]]:
    """Key, file, and whether it is code."""
    for key, value in _texts(settings, ""):
        match = CODE_FORM.fullmatch(value)
        section, _, last = key.partition("[")[0].rpartition(".")
        if match and match["place"] != PACKAGE:
            if (file := _file_of(match["place"])) is not None:
                yield key, file, True
        elif last in DATA_KEYS and (section == "data" or section.startswith("eval.sets.")) and Path(value).is_file():
            yield key, Path(value), False


def _texts(value: Any, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, Mapping):
        for name, below in value.items():
            yield from _texts(below, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list | tuple):
        for index, below in enumerate(value):
            yield from _texts(below, f"{key}[{index}]")


def _file_of(place: str) -> Path | None:
    """The source of a file or a module; the module is looked for, not imported, for that would run its packages."""
    if place.endswith(".py"):
        return Path(place)
    top, *below = place.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if not below:
        return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    candidates = [folder.joinpath(*below) for folder in folders]
    files = [file for path in candidates for file in (path.with_suffix(".py"), path / "__init__.py")]
    return next((file for file in files if file.is_file()), None)


def _copied(path: Path, folder: Path) -> str:
    """Copy a file under its own name, or where another file has it, under its name with a number."""
    folder.mkdir(exist_ok=True)
    names = (f"{path.stem}{number or ''}{path.suffix}" for number in range(1000))
    name = next(name for name in names if not (folder / name).exists())
    shutil.copyfile(path, folder / name)
    return name
