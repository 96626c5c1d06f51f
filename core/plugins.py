"""A user's own code, named in a run file: how it is found, loaded and called. Every door of the house uses this.

A door is one place where a built-in may be replaced: a key of the run file that takes the built-in's name,
`module.py:name` (a file) or `package.module:name` (importable), and a key with options. Built-ins and a user's own go
the same way: found, called with the options, held to the same contract.
Left out: a file's neighbours are not importable from it; use the package form for code of several files.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
import json
import os
import sys
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from common.mistake import Wrong

USER_FILES = "EBBTIDE_USER_FILES"  # variable: module names of users' files, for processes that their code spawns
FORMS = "module.py:function or package.module:function"


@dataclass(frozen=True)
class Door:
    """One place where a user's code may stand in for a built-in.

    Attributes:
        key: of the run file, with dots: `algorithm.loss`.
        builtins: a name for each built-in, and where it is (`package.module:name`); texts, so that a login node knows
            the names without importing torch.
        arguments: what the function is called with, in order; empty: it is no function, see `methods`.
        methods: what an object of the class must have, where the door takes objects.
        options_key: the key of its keyword arguments; empty: there are none.
        gives: what comes back, for messages: "[B] float32".
        offers: what else it may ask for: a parameter of such a name is given it, by name, at each call.
        needs: a package that a built-in works with, and that not everybody has installed.
    """

    key: str
    builtins: Mapping[str, str]
    arguments: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    options_key: str = ""
    gives: str = ""
    offers: tuple[str, ...] = ()
    needs: Mapping[str, str] = field(default_factory=dict)

    @property
    def wanted(self) -> str:
        """What stands in this door, as a noun phrase."""
        if self.methods:
            return f"a class with {', '.join(self.methods)}"
        returns = f" -> {self.gives}" if self.gives else ""
        return f"a function ({', '.join(self.arguments)}){returns}, or a class whose objects are called so"

    @property
    def choices(self) -> str:
        """All that the key takes, as a noun phrase."""
        return f"one of {', '.join(self.builtins)}, or {FORMS}" if self.builtins else FORMS

    def place(self, name: str) -> str:
        """`package.module:name` or `module.py:name` of what a run file calls `name`."""
        return self.builtins.get(name, name)

    def build(
        self, name: str, options: Mapping[str, Any] | None = None, settings: Mapping[str, Any] | None = None
    ) -> Any:
        """The function with its options bound, or an object of the class made with them.

        Args:
            settings: the keys of the door's section: a parameter of such a name gets its value, unless an option does.
        Raises:
            Wrong: nothing of that name, it does not take these options, or what it makes does not fit this door.
        """
        if name not in self.builtins and ":" not in name:
            raise Wrong(f"{self.key} {name!r}", self.choices, "correct the name")
        target = load_function(self.place(name), self.key)
        options = {**_asked_for(target, settings or {}), **(options or {})}
        try:
            inspect.signature(target).bind_partial(**options)
            made = target(**options) if inspect.isclass(target) else bound(target, options)
        except TypeError as error:
            key = self.options_key or self.key
            raise Wrong(f"{key} that {name} does not take ({error})", self.wanted, f"correct {key}") from error
        self._refuse_misfit(name, made)
        return made

    def asked_by(self, made: Callable[..., Any]) -> tuple[str, ...]:
        """What of the offers the function has parameters for."""
        parameters = inspect.signature(made).parameters
        return tuple(name for name in self.offers if name in parameters)

    def _refuse_misfit(self, name: str, made: Any) -> None:
        missing = [method for method in self.methods if not callable(getattr(made, method, None))]
        if missing:
            raise Wrong(f"{name} ({self.key}) without {', '.join(missing)}", self.wanted, "define what is missing")
        if self.methods:
            return
        try:
            inspect.signature(made).bind(*self.arguments, **dict.fromkeys(self.asked_by(made)))
        except TypeError as error:
            found = f"{name} ({self.key}), which cannot be called with {', '.join(self.arguments)} ({error})"
            raise Wrong(found, self.wanted, "correct its parameters") from error


def _asked_for(target: Callable[..., Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that a parameter is named after."""
    parameters = inspect.signature(target).parameters
    return {name: value for name, value in settings.items() if name in parameters}


def bound(function: Callable[..., Any], options: Mapping[str, Any]) -> Callable[..., Any]:
    """The function with its options; what is set on the function can be read from the result."""
    if not options:
        return function
    made = functools.partial(function, **options)
    made.__dict__.update(vars(function))
    return made


def where(function: Callable[..., Any]) -> str:
    """`NAME of FILE` of a function, or of the class of an object that is called like one, for messages."""
    inner = function.func if isinstance(function, functools.partial) else function
    named = inner if hasattr(inner, "__qualname__") else type(inner)
    module = sys.modules.get(named.__module__)
    return f"{named.__qualname__} of {getattr(module, '__file__', None) or named.__module__}"


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
    os.environ[USER_FILES] = json.dumps({**_user_files(), name: str(file.resolve())})
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


def _user_files() -> dict[str, str]:
    found: dict[str, str] = json.loads(os.environ.get(USER_FILES, "{}"))
    return found


class UserFiles(MetaPathFinder):
    """Finds users' files by the names that `load_function` gave them.

    A process that a user's function spawns (multiprocessing's way) looks up its functions by module name; it imports
    the module that its parent ran, and through that this one.
    """

    def find_spec(self, fullname: str, *_: object) -> ModuleSpec | None:
        file = _user_files().get(fullname) if fullname.startswith("_ebbtide_user_") else None
        return importlib.util.spec_from_file_location(fullname, file) if file else None


if not any(isinstance(finder, UserFiles) for finder in sys.meta_path):
    sys.meta_path.append(UserFiles())
