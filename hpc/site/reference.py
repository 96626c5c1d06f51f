"""The tables of docs/site-file.md, made from the schema: `python -m hpc.site.reference`."""

from __future__ import annotations

from collections.abc import Iterator

from common.reference_table import section, table
from hpc.site.keys import SITE_KEYS


def reference() -> str:
    """All keys with type, default and meaning, as markdown."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield from ("### Top level", "")
    yield from table(SITE_KEYS, ())
    for name in SITE_KEYS.sections():
        yield from section(SITE_KEYS, name)


if __name__ == "__main__":
    print(reference(), end="")
