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

from common.mistake import Wrong

FORMS = "module.py:function or package.module:function"


def split_function(path: str) -> tuple[str, str]:
    """File or module, and function; without a colon the function is empty."""
    place, colon, name = path.rpartition(":")
    return (place, name) if colon else (path, "")


def load_function(path: str, key: str) -> Callable[..., Any]:
    """The function that `path` names.

    Args:
        path: `folder/module.py:function` or `package.module:function`.
        key: the run file's key, for the error text (`reward.path`).
    Raises:
        Wrong: (a ValueError) the path has another form, or names no module, no function, or something that cannot be
            called.
    """
    place, name = split_function(path)
    if not place or not name.isidentifier():
        raise Wrong(f"{key} {path!r}", FORMS, "write the file or module, a colon, and the function's name")
    module = _load_file(Path(place), key) if place.endswith(".py") else _load_module(place, key)
    function = getattr(module, name, None)
    if not callable(function):
        found = f"nothing named {name}" if function is None else f"a {type(function).__name__} named {name}"
        callables = [item for item, value in vars(module).items() if callable(value) and not item.startswith("_")]
        remedy = f"use one that it has: {', '.join(callables)}" if callables else "define one"
        raise Wrong(f"{found} in {place} ({key})", "a function", remedy)
    return cast(Callable[..., Any], function)


def _load_file(file: Path, key: str) -> ModuleType:
    if not file.is_file():
        raise Wrong(f"no file {str(file)!r} for {key} (looked in {Path.cwd()})", "a Python file", "correct the path")
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
        found = f"{file} ({key}), which cannot be imported: {type(error).__name__}: {error}"
        raise Wrong(found, "a Python file that can be imported", "correct it") from error
    return module


def _load_module(name: str, key: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:
        found = f"the module {name!r} ({key}), which cannot be imported: {type(error).__name__}: {error}"
        remedy = "install it, put its folder on PYTHONPATH, or give the file as module.py:function"
        raise Wrong(found, "a module that can be imported", remedy) from error
