"""From the tree of a site file to a `Site`, every mistake turned into a `Mistake`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from hpc import site_keys
from hpc.mistake import Mistake, Wrong, show
from hpc.site_schema import Site
from hpc.site_yaml import KeyPath, Lines
from hpc.suggest import nearest


def check_site(tree: Mapping[str, Any], lines: Lines) -> tuple[Site | None, list[Mistake]]:
    """The site, or all mistakes in it with their lines."""
    given = {key: value for key, value in tree.items() if not (value is None and key in site_keys.EMPTY_MEANS_DEFAULT)}
    try:
        return Site.model_validate(given), []
    except ValidationError as error:
        details = error.errors(include_url=False)
    mistakes: dict[tuple[str, int | None], Mistake] = {}
    for detail in details:
        mistake = _mistake(lines, detail)
        mistakes.setdefault((mistake.key, mistake.line), mistake)
    return None, list(mistakes.values())


def _mistake(lines: Lines, details: Mapping[str, Any]) -> Mistake:
    path = tuple(str(part) for part in details["loc"] if part != "[key]")
    line = next((lines[path[:depth]] for depth in range(len(path), 0, -1) if path[:depth] in lines), None)
    wrong = details.get("ctx", {}).get("error")
    if isinstance(wrong, Wrong):
        return Mistake(".".join(path), line, wrong.found, wrong.wanted, wrong.remedy)
    if details["type"] == "extra_forbidden":
        return _unknown_key(path, line)
    schema = site_keys.schema_at(path)
    value = details["input"]
    return Mistake(".".join(path), line, show(value), site_keys.type_text(schema), _remedy(value, schema))


def _unknown_key(path: KeyPath, line: int | None) -> Mistake:
    section, key = path[:-1], path[-1]
    known = site_keys.keys_of(section)
    suggestion = nearest(key, known)
    elsewhere = next((name for name in ("", *site_keys.SECTIONS) if _is_in(key, name)), None)
    if elsewhere is not None:
        remedy = f"did you mean {elsewhere}.{key}?" if elsewhere else f"move it out of {'.'.join(section)}"
    elif suggestion is not None:
        remedy = f"did you mean {suggestion}?"
    else:
        remedy = "see docs/site-file.md for all keys; further options of sbatch go into sbatch"
    wanted = f"a key of {'.'.join(section)}" if section else "a key of the site file"
    return Mistake(".".join(path), line, "an unknown key", wanted, remedy)


def _is_in(key: str, section: str) -> bool:
    return key in site_keys.keys_of((section,) if section else ())


def _remedy(value: Any, schema: site_keys.Schema) -> str:
    """What to do about a value of the wrong type or out of range."""
    if "enum" in schema:
        suggestion = nearest(value, schema["enum"]) if isinstance(value, str) else None
        return f"did you mean {suggestion}?" if suggestion else "choose one of them"
    wanted = site_keys.type_text(schema)
    if "list" in wanted and isinstance(value, str):
        return f"write [{value}]"
    if "text" in wanted and isinstance(value, list) and all(isinstance(item, str) for item in value):
        return f"write {','.join(value)}"
    if "mapping" in wanted or "section" in wanted:
        return "write its keys below it, as key: value"
    return f"leave the key out for its default, {site_keys.default_text(schema)}"
