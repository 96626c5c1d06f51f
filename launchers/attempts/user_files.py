"""Files of the user that a run file names: code is copied into the attempt's folder, data and model are fingerprinted.

Code is found by its form, `file.py:name` or `package.module:name`, under whatever key: every door takes these forms.
Left out: what the user's code imports, and models inside packages.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from common.mistake import Wrong
from common.units import MIB
from core.data.files import SUFFIXES
from core.pretrained.tokenizer_files import TEMPLATE_FILES, TOKENIZER
from core.pretrained.weight_files import weight_files
from launchers.attempts.fingerprints import of_all, pieces, sha256

CODE_FORM = re.compile(r"(?P<place>[^:]+\.py|[A-Za-z_]\w*(?:\.\w+)*):[A-Za-z_]\w*")
DATA_KEYS = ("path", "chat_template")  # of `data` and of each evaluation set
DATA_SUFFIXES = tuple(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)
PACKAGE = "package"  # `package:NAME` names a package with weights or rows, not a function
MOST_CODE_BYTES = 4 * MIB
MOST_HASHED_BYTES = 512 * MIB  # of all data together, which takes a second or two
MODEL_KEYS = ("model.path", "model.reference_path")
MODEL_FILES = ("config.json", "generation_config.json", TOKENIZER, "tokenizer_config.json", TEMPLATE_FILES[0])


def keep_user_files(settings: Mapping[str, Any], folder: Path | None) -> list[dict[str, Any]]:
    """Copy the code that `settings` name into `folder`, and say of each file what it was.

    Args:
        folder: None: nothing is copied.
    Returns:
        one entry per file: key, path, bytes, modified (seconds since the epoch), sha256 (None: too large; `pieces` then
        has a fingerprint of parts of it), copy (its name in `folder`; None: it is data) and, for a file that cannot be
        read, only key, path and problem. One entry for a model: `files` has the fingerprint of each of its files.
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
            entry |= {} if hashed else {"pieces": pieces(path)}
            kept = folder if is_code and size <= MOST_CODE_BYTES else None
            entry["copy"] = None if kept is None else _copied(path, kept)
        except OSError as error:
            entry = {"key": key, "path": str(path), "problem": error.strerror or str(error)}
        found.append(entry)
    return [*found, *_models(settings)]


def _models(settings: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for key, value in _texts(settings.get("model"), "model"):
        folder = Path(value)
        if key not in MODEL_KEYS or not (folder / MODEL_FILES[0]).is_file():
            continue
        try:
            files = [file for file in (*(folder / name for name in MODEL_FILES), *_weights(folder)) if file.is_file()]
            about: dict[str, float] = {"bytes": sum(file.stat().st_size for file in files)}
            about |= {"modified": max(file.stat().st_mtime for file in files)}
            known = {file.name: pieces(file) for file in files}
        except OSError as error:
            yield {"key": key, "path": value, "problem": error.strerror or str(error)}
        else:
            yield {"key": key, "path": value, **about, "sha256": of_all(known), "copy": None, "files": known}


def _weights(folder: Path) -> list[Path]:
    try:
        return weight_files(folder)
    except Wrong:  # which the check of the model says
        return []


def _named_files(settings: Mapping[str, Any]) -> Iterator[tuple[str, Path, bool]]:
    """Key, file, and whether it is code."""
    for key, value in _texts(settings, ""):
        match = CODE_FORM.fullmatch(value)
        section, _, last = key.partition("[")[0].rpartition(".")
        if match and match["place"] != PACKAGE:
            if (file := _file_of(match["place"])) is not None:
                yield key, file, True
        elif last in DATA_KEYS and (section == "data" or section.startswith("eval.sets.")):
            yield from ((key, file, False) for file in _files_at(Path(value)))


def _files_at(path: Path) -> list[Path]:
    """A file, or the files of a folder with the shards of a set."""
    if path.is_dir():
        return sorted(file for file in path.iterdir() if file.suffix in DATA_SUFFIXES)
    return [path] if path.is_file() else []


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
