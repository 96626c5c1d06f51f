"""Every path of a run directory is spelled once: in core/run_dir, and nowhere else in core and launchers."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from core.run_dir import attempt_folder, run_directory
from core.run_dir.attempt_folder import AttemptFolder, StartFolder
from core.run_dir.run_directory import RunDirectory
from hpc.sbatch.text import sbatch_text
from tests.support.sample_jobs import JOB
from tests.test_arrows import ROOT, sources

ARGUMENTS = {"number": 7, "node": 7, "rank": 7, "incarnation": 7, "restart": 7, "num_steps": 7}
TOP = Path("/run")


def paths(kind: type) -> dict[str, Path]:
    """Name of a property or method -> the path that it gives, with arguments made up."""
    found = {}
    for name, value in vars(kind).items():
        if isinstance(value, property) and isinstance(path := getattr(kind(TOP), name), Path):
            found[name] = path
        elif inspect.isfunction(value) and inspect.signature(value).return_annotation == "Path":
            parameters = [*inspect.signature(value).parameters][1:]
            found[name] = value(kind(TOP), *(ARGUMENTS.get(one, "word") for one in parameters))
    return found


ALL = {
    f"{kind.__name__}.{name}": path
    for kind in (RunDirectory, AttemptFolder, StartFolder)
    for name, path in paths(kind).items()
}
# the words of these paths, but for what was made up
NAMES = {part for path in ALL.values() for part in path.relative_to(TOP).parts} - {"7", "word"}


def spelled_names(text: str) -> Iterator[tuple[int, str]]:
    """Line and text of each of these names that is joined to a path, or looked for in one."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            parts = [node.right]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in METHODS:
            parts = node.args
        else:
            continue
        for part in parts:
            for pattern in as_patterns(part):
                if any(re.fullmatch(pattern, name) for name in NAMES):
                    yield node.lineno, ast.unparse(part)


METHODS = {"glob", "rglob", "joinpath", "with_name"}


def as_patterns(part: ast.expr) -> Iterator[str]:
    """Regular expressions of the names that a text or an f-string may give; of those with nothing fixed, none."""
    if isinstance(part, ast.Constant) and isinstance(part.value, str):
        text = part.value
    elif isinstance(part, ast.JoinedStr):
        text = "".join(str(value.value) if isinstance(value, ast.Constant) else "*" for value in part.values)
    else:
        return
    for name in text.split("/"):
        if re.search(r"\w{2}", name.rpartition(".")[0] or name):
            yield re.escape(name).replace(r"\*", ".*")


def test_the_docstrings_list_every_path() -> None:
    page = f"{run_directory.__doc__}\n{attempt_folder.__doc__}"
    for name, path in ALL.items():
        shown = re.escape(path.name).replace("7", r"\w+").replace("word", r"\w+")
        assert re.search(rf"(?<!\w){shown}", page, re.I), name
    for name in paths(RunDirectory):
        if not name.startswith("_"):
            assert re.search(rf" {name}\b", str(run_directory.__doc__)), name


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('directory.path / "slurm" / "job.sbatch"', ["'job.sbatch'", "'slurm'"]),
        ('folder / f"agent-{node}.log"', ["f'agent-{node}.log'"]),
        ('folder / "failures" / f"{role}-{name}.json"', ["'failures'"]),
        ('folder.glob("*/run.yaml")', ["'*/run.yaml'"]),
        ('folder / "config.json"', []),
        ("folder / name", []),
    ],
)
def test_a_spelled_path_is_found(text: str, found: list[str]) -> None:
    assert sorted(part for _, part in spelled_names(text)) == found


@pytest.mark.parametrize("folder", ["core", "launchers"])
def test_nobody_else_spells_a_path_of_a_run_directory(folder: str) -> None:
    files = [path for path in sources(folder) if path.parent != ROOT / "core" / "run_dir"]
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {part}"
        for path in files
        for line, part in spelled_names(path.read_text(encoding="utf-8"))
    ]
    assert wrong == []


def test_the_job_script_knows_the_same_paths() -> None:
    """Slurm's side names them itself, as it imports nothing of the run's."""
    text, directory = sbatch_text(replace(JOB, run_dir=TOP)), RunDirectory(TOP)
    start = StartFolder(directory.job_start("$SLURM_JOB_ID", "${SLURM_RESTART_COUNT:-0}"))
    assert f"--output={directory.batch_log('%j')}" in text.replace('"', "")
    assert f"EBBTIDE_SLURM_DIR={start.path}".replace(str(TOP), "$EBBTIDE_RUN_DIR") in text
    assert str(StartFolder(Path("$EBBTIDE_SLURM_DIR")).verdict) in text
