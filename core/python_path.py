"""A function named in a run file: `module.py:function` (a file) or `package.module:function` (importable).

Left out: a file's neighbours are not importable from it; use the package form for code of several files.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, cast


def load_function(path: str, key: str) -> Callable[..., Any]:
    """The function that `path` names.

    Args:
        path: `folder/module.py:function` or `package.module:function`.
        key: the run file's key, for the error text (`reward.path`).
    Raises:
        ValueError: the path has another form, or names no module, no function, or something that cannot be called.
    """
    place, separator, name = path.rpartition(":")
    if not separator or not place or not name.isidentifier():
        raise ValueError(f"{key} is {path!r}; wanted module.py:function or package.module:function")
    module = _load_file(Path(place), key) if place.endswith(".py") else _load_module(place, key)
    function = getattr(module, name, None)
    if not callable(function):
        found = "nothing of that name" if function is None else f"a {type(function).__name__}"
        callables = [item for item, value in vars(module).items() if callable(value) and not item.startswith("_")]
        raise ValueError(
            f"{key} is {path!r}: {found} in {place}; wanted a function: it has {', '.join(callables) or 'none'}"
        )
    return cast(Callable[..., Any], function)


def _load_file(file: Path, key: str) -> ModuleType:
    if not file.is_file():
        raise ValueError(
            f"{key}: no file {str(file)!r} (looked in {Path.cwd()}); wanted a Python file: correct the path"
        )
    name = f"_ebbtide_user_{file.stem}_{zlib.crc32(bytes(file.resolve())):08x}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look a class's module up here
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise ValueError(f"{key}: {file} cannot be imported: {type(error).__name__}: {error}") from error
    return module


def _load_module(name: str, key: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise ValueError(
            f"{key}: module {name!r} cannot be imported: {type(error).__name__}: {error}; wanted an importable module: "
            "install it, put its folder on PYTHONPATH, or give the file as module.py:function"
        ) from error
