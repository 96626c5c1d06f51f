"""The tables of docs/site-file.md, made from the schema: `python -m hpc.site_reference`."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

from hpc import site_keys
from hpc.site_schema import Container, CpuNodes

SECTIONS = {"cpu_nodes": CpuNodes, "container": Container}


def reference() -> str:
    """All keys with type, default and meaning, as markdown."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "### Top level"
    yield ""
    yield from _table(())
    for name, section in SECTIONS.items():
        yield ""
        yield f"### {name}"
        yield ""
        yield inspect.getdoc(section) or ""
        yield ""
        yield from _table((name,))


def _table(path: tuple[str, ...]) -> Iterator[str]:
    yield "| key | value | default | meaning |"
    yield "|---|---|---|---|"
    for name in site_keys.keys_of(path):
        key = site_keys.schema_at((*path, name))
        kind = "a section, see below" if name in SECTIONS else site_keys.type_text(key)
        default = f"`{site_keys.default_text(key)}`"
        cells = (f"`{name}`", kind, default, key["description"])
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


if __name__ == "__main__":
    print(reference(), end="")
