"""Who may import whom: the arrows of docs/design.md, read from the sources."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.waiting import COMMAND_S

ROOT = Path(__file__).parents[1]
OURS = {"common", "core", "ebbtide", "hpc", "launchers", "modelcfg"}
ALLOWED = {
    "ebbtide": {"core", "hpc"},
    "launchers": {"common", "core", "hpc", "modelcfg", "launchers"},
    "core": {"common", "core", "modelcfg"},
    "hpc": {"common", "hpc"},
    "modelcfg": {"common", "modelcfg"},
    "common": {"common"},
}
LIGHT_THIRD_PARTY = {"pydantic", "pydantic_core", "yaml", "submitit"}  # all that these may use
ONE_PLACE = {"megatron": "core/megatron", "sglang": "core/sglang", "submitit": "hpc", "matplotlib": "launchers/report"}


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, at the top or inside a function."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def sources(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("folder", sorted(ALLOWED))
def test_own_imports_follow_the_arrows(folder: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sources(folder)
        for name in imports(path)
        if (top := name.split(".")[0]) in OURS and top not in ALLOWED[folder]
    ]
    assert wrong == []


@pytest.mark.parametrize("folder", ["common", "hpc", "modelcfg"])
def test_login_node_folders_use_only_light_libraries(folder: str) -> None:
    allowed = sys.stdlib_module_names | LIGHT_THIRD_PARTY | ALLOWED[folder]
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sources(folder)
        for name in imports(path)
        if name.split(".")[0] not in allowed
    ]
    assert wrong == []


@pytest.mark.parametrize("library", sorted(ONE_PLACE))
def test_adapters_are_the_only_place_for_a_library(library: str) -> None:
    wrong = [
        str(path.relative_to(ROOT))
        for folder in sorted(OURS)
        for path in sources(folder)
        if any(name.split(".")[0] == library for name in imports(path))
        and not str(path.relative_to(ROOT)).startswith(ONE_PLACE[library])
    ]
    assert wrong == []


@pytest.mark.parametrize(
    "module",
    ["common", "hpc", "hpc.sbatch", "modelcfg", "core.config", "core.planner", "core.residency", "launchers.cli"],
)
def test_login_node_modules_do_not_load_torch(module: str) -> None:
    code = f"import sys, {module}; print(sorted({{'torch', 'transformers', 'numpy'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=COMMAND_S, check=True)
    assert done.stdout.strip() == "[]"
