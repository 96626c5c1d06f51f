"""The face that users import: every name is there and documented, it is light, and examples and pages use no other."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import ebbtide
from tests.support.waiting import COMMAND_S
from tests.test_arrows import OURS, ROOT, imports

INSIDE = OURS - {"ebbtide"}

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TREE = ast.parse((ROOT / "ebbtide" / "__init__.py").read_text())
DOCUMENTED = re.findall(r"^    (\w+): ", ebbtide.__doc__ or "", re.M)


@pytest.mark.parametrize("name", ebbtide.__all__)
def test_a_name_is_loaded_from_where_type_checkers_look(name: str) -> None:
    [home] = [
        node.module
        for node in ast.walk(TREE)
        if isinstance(node, ast.ImportFrom) and any(alias.name == name for alias in node.names)
    ]
    assert ebbtide._HOME[name] == home
    assert getattr(ebbtide, name) is not None


def test_every_name_is_documented_once() -> None:
    assert sorted(DOCUMENTED) == ebbtide.__all__ == sorted(dir(ebbtide))


def test_it_holds_nothing() -> None:
    defined = {node.name for node in TREE.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    assert defined == {"__getattr__", "__dir__"}
    assert [path.name for path in (ROOT / "ebbtide").iterdir() if path.name != "__pycache__"] == ["__init__.py"]


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'ebbtide' has no attribute 'RewardOutput'"):
        ebbtide.RewardOutput  # noqa: B018


@pytest.mark.parametrize("code", ["import ebbtide", "from ebbtide import RewardInput, Sample, load_site"])
def test_it_loads_no_big_library(code: str) -> None:
    ask = f"import sys; {code}; print(sorted({{'torch', 'numpy', 'transformers', 'sglang'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, timeout=COMMAND_S, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("path", sorted((ROOT / "examples").rglob("*.py")), ids=lambda path: path.name)
def test_an_example_imports_nothing_else_of_ours(path: Path) -> None:
    assert [name for name in imports(path) if name.split(".")[0] in INSIDE] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_imports_nothing_else_of_ours(page: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    found = re.findall(r"^\s*(?:from|import) ([\w.]+)", "\n".join(blocks), re.M)
    assert [name for name in found if name.split(".")[0] in INSIDE] == []
