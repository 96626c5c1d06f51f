"""The rooms of docs/design.md: its tables, the folders and the imports between them say the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.test_arrows import ROOT, imports, sources

HOUSES = ("core", "core/megatron", "hpc", "launchers")
MOST_LOOSE_FILES = 3
OUTSIDE = {"__init__.py", "__main__.py"}  # no rooms: what a package is imported and started by


def rooms(house: str) -> list[str]:
    """Folders and loose files that the page lists, in its order."""
    page = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    _, _, table = page.partition(f"| room of `{house}/` |")
    assert table, f"docs/design.md has no table of the rooms of {house}/"
    rows = table.partition("\n\n")[0].splitlines()[2:]
    return [re.match(r"\| `([\w.]+)/?` \|", row)[1] for row in rows]  # type: ignore[index]


def room_of(house: str, module: str) -> str | None:
    """The room of a house that a module lies in, as the page spells it; None: in none."""
    prefix = house.replace("/", ".") + "."
    if not module.startswith(prefix):
        return None
    name = module.removeprefix(prefix).split(".")[0]
    return name if (ROOT / house / name).is_dir() else f"{name}.py"


@pytest.mark.parametrize("house", HOUSES)
def test_the_page_lists_every_room(house: str) -> None:
    found = {
        entry.name
        for entry in (ROOT / house).iterdir()
        if (entry.suffix == ".py" and entry.name not in OUTSIDE) or (entry.is_dir() and any(entry.glob("*.py")))
    }
    assert set(rooms(house)) == found


@pytest.mark.parametrize("house", ["core", "launchers", "hpc"])
def test_few_files_lie_loose(house: str) -> None:
    loose = [path.name for path in (ROOT / house).glob("*.py") if path.name not in OUTSIDE]
    assert len(loose) <= MOST_LOOSE_FILES, loose


@pytest.mark.parametrize("house", HOUSES)
def test_a_room_imports_only_from_rooms_above_it(house: str) -> None:
    order = rooms(house)
    wrong = []
    for path in sources(house):
        if path.parent == ROOT / house and path.name in OUTSIDE:
            continue
        here = path.relative_to(ROOT / house).parts[0]
        for name in modules_of(path):
            there = room_of(house, name)
            if there in order and there != here and order.index(there) > order.index(here):
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert wrong == []


def modules_of(path: Path) -> list[str]:
    """What a file imports, as modules: `from core import samples` names core.samples."""
    found = list(imports(path))
    for match in re.finditer(r"^\s*from ([\w.]+) import ([\w, ]+)", path.read_text(encoding="utf-8"), re.M):
        found += [f"{match[1]}.{name.split()[0]}" for name in match[2].split(",") if name.split()]
    return found
