"""The tables of docs/run-file.md, made from the schema: `python -m core.config.reference`."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

from core.config import keys, schema
from core.config.schema import RunConfig


def reference() -> str:
    """All sections and keys with type, default and meaning, as markdown."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "### Top level"
    yield ""
    yield from _table((), [key for key in keys.keys_of(()) if key not in set(keys.sections())])
    for section in keys.sections():
        yield ""
        yield f"### {section}"
        yield ""
        needed = "" if keys.default_text(keys.root()["properties"][section]) else " Required."
        yield f"{_summary(section)}{needed}"
        yield ""
        yield from _table((section,), keys.keys_of((section,)))
    yield ""
    yield "### slurm.components"
    yield ""
    yield f"A list; each entry is {_lower(inspect.getdoc(schema.SlurmComponent))}"
    yield ""
    component = ("slurm", "components", "0")
    yield from _table(component, keys.keys_of(component))
    yield ""
    yield "### eval.sets.NAME"
    yield ""
    yield f"{inspect.getdoc(schema.EvalSet)} The keys are those of `data`, with these other defaults:"
    yield ""
    yield from _table(("eval", "sets", "NAME"), list(_other_defaults()))


def _lower(sentence: str | None) -> str:
    return (sentence or "")[:1].lower() + (sentence or "")[1:]


def _summary(section: str) -> str:
    annotation = RunConfig.model_fields[section].annotation
    assert annotation is not None
    return inspect.getdoc(annotation) or ""


def _other_defaults() -> Iterator[str]:
    for key, field in schema.EvalSet.model_fields.items():
        if field.default != schema.DataConfig.model_fields[key].default:
            yield key


def _table(path: tuple[str, ...], names: list[str]) -> Iterator[str]:
    yield "| key | value | default | meaning |"
    yield "|---|---|---|---|"
    for name in names:
        key = keys.schema_at((*path, name))
        assert key is not None
        cells = (f"`{name}`", keys.type_text(key), _default(path, name, key), key.get("description", ""))
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _default(path: tuple[str, ...], name: str, key: keys.Schema) -> str:
    text = keys.default_text(key)
    if text:
        return f"`{text}`"
    if path and name in keys.required_keys_of(path):
        return "required"
    return "`[]`" if key.get("type") == "array" else "`{}`"


if __name__ == "__main__":
    print(reference(), end="")
