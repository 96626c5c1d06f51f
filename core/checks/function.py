"""A user's Python function, looked for without running it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path

from common.mistake import Mistake
from common.nearest import nearest
from core.plugins import FORMS, split_function


def python_function(key: str, path: str) -> Iterator[Mistake]:
    """The syntax of `path`, the file or module it names, and the function in it."""
    module, function = split_function(path)
    if not function.isidentifier() or not module:
        yield Mistake(key, None, f"{path!r}", FORMS, "write the file or module, a colon, and the function's name")
        return
    if not module.endswith(".py") and not all(part.isidentifier() for part in module.split(".")):
        yield Mistake(key, None, f"{path!r}", FORMS, "end a file's name with .py, or write a module's name with dots")
        return
    file = source_file(path)
    if file is None:
        yield Mistake(
            key, None, f"no module {module!r}", "a module that can be imported", "install it, or give a .py file"
        )
    elif not file.is_file():
        yield Mistake(key, None, f"{file}, which does not exist", "a Python file", "correct the path")
    elif file.suffix == ".py":
        yield from _function_in(key, file, function)


def source_file(path: str) -> Path | None:
    """The file of the function or class at `path`; None: there is no such module."""
    module, _ = split_function(path)
    return Path(module) if module.endswith(".py") else module_file(module)


def module_file(module: str) -> Path | None:
    """The file of a module; unlike `importlib.util.find_spec`, parent packages are not run."""
    if not all(part.isidentifier() for part in module.split(".")):
        return None
    folders: list[str] | None = None
    spec = None
    for part in module.split("."):
        # of a package at the top other finders may know more: one that is installed to be edited
        spec = find_spec(part) if folders is None else PathFinder.find_spec(part, folders)
        if spec is None:
            return None
        folders = list(spec.submodule_search_locations or [])
    return Path(spec.origin) if spec is not None and spec.origin else None


def installed(package: str) -> bool:
    """Whether a package is there; a folder that only has its name does not count."""
    spec = PathFinder.find_spec(package)
    return spec is not None and spec.origin is not None


def _function_in(key: str, file: Path, function: str) -> Iterator[Mistake]:
    try:
        names = _top_level_names(ast.parse(file.read_bytes()))
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        where = f", line {line}" if line else ""
        yield Mistake(
            key, None, f"a syntax error in {file}{where}", "a Python file that can be imported", "correct the file"
        )
        return
    if function not in names and "*" not in names:
        suggestion = nearest(function, names)
        remedy = f"did you mean {suggestion}?" if suggestion else f"define {function} at the top level of the file"
        yield Mistake(key, None, f"no {function} in {file}", "a function defined or imported there", remedy)


def _top_level_names(tree: ast.Module) -> list[str]:
    """What a file binds, branches of `if` and `try` included; `*` stands for names that cannot be known."""
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.append(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names += [alias.asname or alias.name for alias in node.names]
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.append(node.id)
    return names


def definition(path: str) -> ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | None:
    """The function or class that `path` names, if it is defined at the top level of its file; else None."""
    file, (_, name) = source_file(path), split_function(path)
    if file is None or file.suffix != ".py":
        return None
    for node in ast.parse(file.read_bytes()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node.name == name:
            return node
    return None
