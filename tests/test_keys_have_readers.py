"""Every key of the run file and of the site file is read by something that acts on it.

Sources are parsed, not run. A key counts as read where `.key` is asked of a value that holds its section, by its name:
the section's own, that of an argument or field annotated with it, or of a variable that it was put into. Schemas and
checks are no readers.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from core.checks.function import definition
from core.checks.signature import Signature
from core.config.schema import RunConfig
from core.doors import DOORS
from hpc.site.schema import Site

ROOT = Path(__file__).parents[1]
FOLDERS = ("core", "hpc", "launchers")
NO_READERS = (
    *("core/config/schema.py", "core/config/sections/", "core/config/keys.py"),
    *("hpc/site/schema.py", "hpc/site/first.py"),
)
PROPERTIES = {
    ("CheckpointConfig", "every"): "every_s",
    ("CheckpointConfig", "save_hf"): "model_interval",
    ("LoraConfig", "alpha"): "scale",
    ("Site", "port_range"): "ports",
    ("Site", "time"): "time_minutes",
    ("Site", "max_time"): "max_time_minutes",
}
BY_ANOTHER = {("EvalSet", "interval"): ("EvalConfig", "interval_of")}
"""Keys that a method of another section reads."""
BY_NAME = {
    "hpc/sbatch/request.py": {("Site", "CpuNodes"): ("partition", "account", "qos", "constraint")},
    "launchers/attempts/verdict.py": {("SlurmConfig",): ("max_timeouts", "max_preemptions", "max_failures")},
}
"""Keys that a file spells as text and reads with getattr."""


def models(model: type[BaseModel], name: str) -> Iterator[tuple[type[BaseModel], str]]:
    """The sections of a file, each with the key that holds it."""
    yield model, name
    for key, field in model.model_fields.items():
        for kind in (field.annotation, *_parts(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from models(kind, key)


def _parts(annotation: object) -> Iterator[object]:
    for part in get_args(annotation):
        yield part
        yield from _parts(part)


def _owner(model: type[BaseModel], key: str) -> str:
    """The class that brought the key: readers may know no more than that one."""
    return [base for base in model.__mro__ if key in getattr(base, "model_fields", ())][-1].__name__


SECTIONS = [*models(RunConfig, "config"), *models(Site, "site")]
KEYS = sorted({(_owner(model, key), key) for model, _ in SECTIONS for key in model.model_fields})


@cache
def trees() -> list[ast.Module]:
    """All sources that may read a key."""
    paths = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    texts = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in paths}
    return [ast.parse(text) for name, text in texts.items() if not name.startswith(NO_READERS)]


@cache
def reads() -> set[tuple[str, str]]:
    """(class name of the section, key) of everything that is read."""
    return {*reads_of(trees()), *_by_name(), *_by_parameter()}


def _by_parameter() -> Iterator[tuple[str, str]]:
    """What the built-ins of a door get because a parameter of theirs has the key's name."""
    for door in DOORS:
        section = str(getattr(RunConfig.model_fields[door.key.partition(".")[0]].annotation, "__name__", ""))
        for place in door.builtins.values():
            found = definition(place)
            assert found is not None, place
            yield from ((section, name) for name in Signature.of(found).names)


def _by_name() -> Iterator[tuple[str, str]]:
    for name, sections in BY_NAME.items():
        nodes = list(ast.walk(ast.parse((ROOT / name).read_text(encoding="utf-8"))))
        texts = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
        assert any(isinstance(node, ast.Name) and node.id == "getattr" for node in nodes)
        for owners, keys in sections.items():
            yield from ((owner, key) for owner in owners for key in keys if key in texts)


def reads_of(sources: list[ast.Module]) -> Iterator[tuple[str, str]]:
    """What these modules read."""
    everywhere = {model.__name__: {name} for model, name in SECTIONS}
    for tree in sources:
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                _add_annotated(everywhere, node.body)
    for tree in sources:
        names = {section: set(known) for section, known in everywhere.items()}
        _add_annotated(names, ast.walk(tree))
        for _ in range(2):  # a variable may be put into a variable
            _add_variables(names, tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                yield from ((section, node.attr) for section, known in names.items() if _last(node.value) in known)


def _add_annotated(names: dict[str, set[str]], nodes: object) -> None:
    for node in nodes:  # type: ignore[attr-defined]
        if isinstance(node, ast.AnnAssign | ast.arg) and node.annotation is not None:
            words = {part.id for part in ast.walk(node.annotation) if isinstance(part, ast.Name)}
            target = node.arg if isinstance(node, ast.arg) else _last(node.target)
            for section in words & set(names):
                names[section] |= {target, f"_{target}"}


def _add_variables(names: dict[str, set[str]], tree: ast.Module) -> None:
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            pairs = [(target, node.value) for target in node.targets]
        elif isinstance(node, ast.For | ast.comprehension):
            pairs = [(node.target, node.iter)]
        elif isinstance(node, ast.NamedExpr):
            pairs = [(node.target, node.value)]
        else:
            continue
        for target, value in pairs:
            _bind(names, target, value)


def _bind(names: dict[str, set[str]], target: ast.expr, value: ast.expr) -> None:
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        for one, its in zip(target.elts, value.elts, strict=False):
            _bind(names, one, its)
    elif isinstance(target, ast.Tuple):  # for name, section in mapping.items(), enumerate(sections)
        _bind(names, target.elts[-1], value)
    elif isinstance(value, ast.Call):
        source = value.func.value if isinstance(value.func, ast.Attribute) else next(iter(value.args), value.func)
        _bind(names, target, source)
    elif isinstance(value, ast.IfExp):
        _bind(names, target, value.body)
    elif isinstance(value, ast.BoolOp):
        _bind(names, target, value.values[0])
    else:
        for known in names.values():
            if _last(value) in known:
                known.add(_last(target))


def _last(node: ast.expr) -> str:
    """`c` of `a.b.c`."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


@pytest.mark.parametrize(("section", "key"), KEYS, ids=[f"{section}.{key}" for section, key in KEYS])
def test_a_key_has_a_reader(section: str, key: str) -> None:
    read = BY_ANOTHER.get((section, key), (section, PROPERTIES.get((section, key), key)))
    assert read in reads(), f"nothing reads {key} of {section}"


def test_a_key_is_not_read_by_what_only_has_its_name() -> None:
    source = "def f(record, config: LoggingConfig):\n    return record.level, record.scratch, config.tensorboard"
    found = set(reads_of([ast.parse(source)]))
    assert ("LoggingConfig", "tensorboard") in found
    assert not found & {("LoggingConfig", "level"), ("Site", "scratch")}
