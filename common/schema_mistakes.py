"""What pydantic finds wrong with a document, in our words: found, wanted, and the most likely remedy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from common import yaml_dialect
from common.mistake import Mistake, Wrong, show
from common.nearest import nearest
from common.schema_words import KeyPath, Schema, SchemaWords, choices_of, default_text, type_text
from common.yaml_document import Document


def schema_mistakes(error: ValidationError, document: Document, words: SchemaWords) -> list[Mistake]:
    """All mistakes of the document, one for each key, with their lines."""
    mistakes: dict[tuple[str, int | None], Mistake] = {}
    for details in error.errors(include_url=False):
        mistake = _mistake(document, words, details)
        mistakes.setdefault((mistake.key, mistake.line), mistake)
    return list(mistakes.values())


def _mistake(document: Document, words: SchemaWords, details: Mapping[str, Any]) -> Mistake:
    path = tuple(str(part) for part in details["loc"] if part != "[key]")
    wrong = details.get("ctx", {}).get("error")
    if isinstance(wrong, Wrong):
        return document.mistake(path, wrong.found, wrong.wanted, wrong.remedy)
    if details["type"] == "extra_forbidden":
        return _unknown_key(document, words, path)
    schema = words.schema_at(path) or {"type": "string"}
    if details["type"] == "missing":
        return _missing_key(document, words, path, schema)
    value = document.value(path)
    found = "infinity or NaN" if details["type"] == "finite_number" else show(value)
    return document.mistake(path, found, type_text(schema), _remedy(document, value, schema))


def _unknown_key(document: Document, words: SchemaWords, path: KeyPath) -> Mistake:
    section, key = path[:-1], path[-1]
    suggestion, home = nearest(key, words.keys_of(section)), words.home_of(key)
    if (told := document.kind.where_it_belongs(path)) is not None:
        remedy = told
    elif home is not None:
        remedy = f"did you mean {'.'.join((*home, key))}?" if home else f"move it out of {'.'.join(section)}"
    elif suggestion is not None:
        remedy = f"did you mean {suggestion}?"
    else:
        remedy = document.kind.other_keys or f"use one of {', '.join(words.keys_of(section))}"
    wanted = f"a key of {'.'.join(section)}" if section else f"a key of the {document.kind.name}"
    return document.mistake(path, "an unknown key", wanted, remedy)


def _missing_key(document: Document, words: SchemaWords, path: KeyPath, schema: Schema) -> Mistake:
    if "$ref" in schema:
        needed = ", ".join(words.required_keys_of(path))
        remedy = f"add the section{f' with {needed}' if needed else ''}"
        return document.mistake(path, "no such section", "the section", remedy)
    meaning = f" ({schema['description']})" if "description" in schema else ""
    return document.mistake(path, "nothing", type_text(schema), f"add {path[-1]}{meaning}")


def _remedy(document: Document, value: Any, schema: Schema) -> str:
    """What to do about a value of the wrong type or out of range."""
    wanted = type_text(schema)
    if choices := choices_of(schema):
        suggestion = nearest(value, choices) if isinstance(value, str) else None
        return f"did you mean {suggestion}?" if suggestion else "choose one of them"
    if remedy := _in_yaml(document, value, schema, wanted):
        return remedy
    if "list" in wanted and isinstance(value, str):
        return f"write [{value}]"
    if "text" in wanted and isinstance(value, list) and all(isinstance(item, str) for item in value):
        return f"write {','.join(value)}"
    if "mapping" in wanted and not isinstance(value, dict):
        return "write its keys below it, as key: value"
    default = default_text(schema)
    if default:
        return f"leave the key out for its default, {default}" if default != "null" else "leave the key out"
    return f"correct it ({schema['description']})" if "description" in schema else "correct it"


def _in_yaml(document: Document, value: Any, schema: Schema, wanted: str) -> str | None:
    """How to spell a value that YAML took for another kind; None where it did not."""
    if isinstance(value, bool) and "text" in wanted:
        return "quote it, because YAML reads yes, no, on and off as true and false"
    if isinstance(value, int | float) and "text" in wanted:
        return "quote it"
    typed = document.kind.reader is yaml_dialect.Typed
    if typed and isinstance(value, str) and "text" not in wanted and value and not yaml_dialect.is_text(value):
        return "remove the quotes"
    if isinstance(value, float) and value.is_integer() and "integer" in str(schema):
        return f"write {int(value)}"
    return None
