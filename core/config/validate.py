"""From the tree of a run file to typed sections, every mistake turned into a `Problem`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from core.config import dialect, keys
from core.config.document import Document, KeyPath
from core.config.problem import Problem, show_value
from core.config.schema import RunConfig
from modelcfg.suggest import nearest


def validate(document: Document) -> tuple[RunConfig, list[Problem]]:
    """The run file's sections, and all mistakes in them.

    With mistakes, the result holds only the sections that have none; reading another one raises AttributeError.
    """
    tree = _with_empty_sections(document.tree)
    try:
        # through JSON, because there pydantic can be strict about numbers and yet take a list for a tuple
        return RunConfig.model_validate_json(json.dumps(tree), strict=True), []
    except ValidationError as error:
        problems = [_problem(document, details) for details in error.errors(include_url=False)]
        broken = {str(details["loc"][0]) for details in error.errors(include_url=False)}
        return _sound_part(tree, broken), problems


def _with_empty_sections(tree: Mapping[str, Any]) -> dict[str, Any]:
    """A section whose keys are all commented out is read as null; an empty one is meant."""
    names = set(keys.sections())
    return {key: {} if key in names and value is None else value for key, value in tree.items()}


def _sound_part(tree: Mapping[str, Any], broken: set[str]) -> RunConfig:
    sound: dict[str, Any] = {}
    for name, field in RunConfig.model_fields.items():
        if name in broken:
            continue
        if name not in tree:
            sound[name] = field.get_default()
        elif name in keys.sections():
            assert field.annotation is not None
            sound[name] = field.annotation.model_validate_json(json.dumps(tree[name]), strict=True)
        else:
            sound[name] = tree[name]
    config = RunConfig.model_construct(_fields_set=set(sound), **sound)
    for name in broken & set(RunConfig.model_fields):
        config.__dict__.pop(name, None)  # model_construct fills in defaults
    return config


def _problem(document: Document, details: Mapping[str, Any]) -> Problem:
    path = tuple(str(part) for part in details["loc"])
    if details["type"] == "extra_forbidden":
        return _unknown_key(document, path)
    schema = keys.schema_at(path) or {}
    if details["type"] == "missing":
        return _missing_key(document, path, schema)
    value = document.value(path)
    found = "infinity or NaN" if details["type"] == "finite_number" else show_value(value)
    return document.problem(path, found, keys.type_text(schema), _remedy(value, schema))


def _unknown_key(document: Document, path: KeyPath) -> Problem:
    section, key = path[:-1], path[-1]
    known = keys.keys_of(section)
    suggestion, elsewhere = nearest(key, known), keys.section_with(key)
    if elsewhere is not None:
        remedy = f"did you mean {elsewhere}.{key}?"
    elif suggestion is not None:
        remedy = f"did you mean {suggestion}?"
    else:
        remedy = f"use one of {', '.join(known)}"
    wanted = f"a key of {'.'.join(section)}" if section else "a section or key of the run file"
    return document.problem(path, "an unknown key", wanted, remedy)


def _missing_key(document: Document, path: KeyPath, schema: keys.Schema) -> Problem:
    if "$ref" in schema:
        needed = ", ".join(keys.required_keys_of(path))
        remedy = f"add the section{f' with {needed}' if needed else ''}"
        return document.problem(path, "no such section", "the section", remedy)
    meaning = f" ({schema['description']})" if "description" in schema else ""
    return document.problem(path, "nothing", keys.type_text(schema), f"add {path[-1]}{meaning}")


def _remedy(value: Any, schema: keys.Schema) -> str:
    """What to do about a value of the wrong type or out of range."""
    choices = schema.get("enum") or [schema["const"]] if "const" in schema or "enum" in schema else []
    if choices:
        suggestion = nearest(value, choices) if isinstance(value, str) else None
        return f"did you mean {suggestion}?" if suggestion else "choose one of them"
    text_wanted = "text" in keys.type_text(schema)
    if isinstance(value, bool) and text_wanted:
        return "quote it, because YAML reads yes, no, on and off as true and false"
    if isinstance(value, int | float) and text_wanted:
        return "quote it"
    if isinstance(value, str) and not text_wanted and value and not dialect.is_text(value):
        return "remove the quotes"
    if isinstance(value, float) and value.is_integer() and "integer" in str(schema):
        return f"write {int(value)}"
    if "$ref" in schema:
        return "write its keys below it, as key: value"
    default = keys.default_text(schema)
    if default:
        return f"leave the key out for its default, {default}" if default != "null" else "leave the key out"
    return f"correct it ({schema['description']})" if "description" in schema else "correct it"
