"""Names that one file imports from another of ours are there: of benchmarks for GPUs, no other test would tell."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
OURS = ("bench", "common", "core", "ebbtide", "examples", "hpc", "launchers", "modelcfg", "tests")


@cache
def names(path: Path) -> frozenset[str]:
    """What a file has at its top, blocks under conditions included."""
    return frozenset(_names(ast.parse(path.read_text()).body))


def _names(body: list[ast.stmt]) -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from (alias.asname or alias.name for alias in node.names)
        elif isinstance(node, ast.Assign | ast.AnnAssign | ast.For | ast.With):
            yield from (
                one.id for one in ast.walk(node) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store)
            )
        for block in ("body", "orelse", "finalbody"):
            yield from _names(getattr(node, block, []))
        for handler in getattr(node, "handlers", []):
            yield from _names(handler.body)


def lost(path: Path) -> Iterator[str]:
    """Modules and names of ours that a file imports, at its top or later, and that are not there."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ImportFrom) or not node.module or node.module.split(".")[0] not in OURS:
            continue
        place = ROOT.joinpath(*node.module.split("."))
        home = place.with_suffix(".py") if place.with_suffix(".py").is_file() else place / "__init__.py"
        for name in (alias.name for alias in node.names):
            is_module = (place / name).is_dir() or (place / f"{name}.py").is_file()
            if not is_module and not (home.is_file() and name in names(home)):
                yield f"{name} of {node.module}"


def test_what_is_imported_of_our_own_is_there() -> None:
    files = [path for folder in OURS for path in sorted((ROOT / folder).rglob("*.py"))]
    assert len(files) > 1000
    assert {str(path): found for path in files if (found := list(lost(path)))} == {}


def test_what_is_gone_is_told(tmp_path: Path) -> None:
    path = tmp_path / "one.py"
    path.write_text("def later():\n    from core.samples import Gone\n    from core.gone import Sample\n")
    assert list(lost(path)) == ["Gone of core.samples", "Sample of core.gone"]
