"""One command makes one plan and reads the model's config.json once, whoever asks for plan and shape."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.launchers.commands.test_submit_command import LOGIN_NODE, Login, login
from tests.support.command_stand_ins import ebbtide_with, stand_in
from tests.support.tiny_runs import write_run

__all__ = ["login"]

COUNTED = """
import atexit, json, os, sys
plans, memory, opened = [], [], []

def count_calls(frame, event, argument):
    code = frame.f_code
    if event == "call" and code.co_name == "make_plan" and code.co_filename.endswith("job_plan.py"):
        plans.append(code.co_name)
    if event == "call" and code.co_name == "plan_memory" and code.co_filename.endswith("planner/decisions.py"):
        memory.append(repr((frame.f_locals["config"], frame.f_locals["device"])))

def count_opens(event, arguments):
    if event == "open" and os.path.basename(str(arguments[0])) == "config.json":
        opened.append(str(arguments[0]))

def write():
    counts = {"plans": len(plans), "memory": len(memory), "distinct": len(set(memory)), "opened": opened}
    open("counts.json", "w").write(json.dumps(counts))

sys.setprofile(count_calls)
sys.addaudithook(count_opens)
atexit.register(write)
"""
NO_ATTEMPT = "import launchers.commands.run; launchers.commands.run.attempt = lambda *_: None"
GPU = ("--set", "placement.device=cuda")


@pytest.fixture(scope="module")
def run_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("run"))


def counts(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "counts.json").read_text())
    return found


def assert_resolved_once(folder: Path) -> None:
    found = counts(folder)
    assert found["plans"] == 1
    assert len(found["opened"]) == 1
    assert found["memory"] == found["distinct"], "the same memory plan made twice"


@pytest.mark.parametrize(
    ("verb", "site"),
    [("submit", {"gpu_memory": "80GiB"}), ("submit", {}), ("sbatch", {"gpu_memory": "80GiB"})],
    ids=str,
)
def test_of_a_submission(verb: str, site: dict[str, str], login: Login, run_file: Path) -> None:
    login.site(**site)
    words = (verb, str(run_file), "--run-dir", "out", *GPU)
    done = ebbtide_with(login.programs, *words, cwd=login.folder, before=LOGIN_NODE + COUNTED)
    assert done.returncode == 0, done.stderr
    assert_resolved_once(login.folder)
    assert counts(login.folder)["memory"] >= 1


def test_of_a_submission_that_is_refused_with_remedies(login: Login, run_file: Path) -> None:
    """Remedies are found by planning again with other settings, for the same shape."""
    login.site(gpu_memory="2GiB")
    words = ("submit", str(run_file), "--run-dir", "out", *GPU)
    done = ebbtide_with(login.programs, *words, cwd=login.folder, before=LOGIN_NODE + COUNTED)
    assert done.returncode == 2
    assert "train.max_tokens_per_micro_batch: found " in done.stderr
    assert len(counts(login.folder)["opened"]) == 1
    assert counts(login.folder)["plans"] == 1


@pytest.mark.parametrize("words", [("--gpu-memory", "h100"), ()], ids=str)
def test_of_a_plan(words: tuple[str, ...], run_file: Path, tmp_path: Path) -> None:
    stand_in(tmp_path / "bin", "nvidia-smi", "exit 9")
    done = ebbtide_with(tmp_path / "bin", "plan", str(run_file), *words, cwd=tmp_path, before=LOGIN_NODE + COUNTED)
    assert done.returncode == 0, done.stderr
    found = counts(tmp_path)
    assert (found["plans"], len(found["opened"])) == (1, 1)


def test_of_a_run(run_file: Path, tmp_path: Path) -> None:
    stand_in(tmp_path / "bin", "nvidia-smi", "echo 'GPU-a, 81000, 81559'")
    before = f"{COUNTED}\n{NO_ATTEMPT}"
    done = ebbtide_with(tmp_path / "bin", "run", str(run_file), "--run-dir", "out", cwd=tmp_path, before=before)
    assert done.returncode == 0, done.stderr
    assert_resolved_once(tmp_path)


def test_the_count_counts(run_file: Path, tmp_path: Path) -> None:
    """Two of each are seen."""
    twice = f"""
from pathlib import Path
from core.config import load_run_file
from hpc.site.files import Site
from launchers.submit.job_plan import make_plan
config = load_run_file({str(run_file)!r})
for _ in range(2):
    make_plan(config, Site())
    Path(config.model.path, "config.json").read_text()
"""
    done = ebbtide_with(tmp_path, "models", cwd=tmp_path, before=f"{COUNTED}\n{twice}")
    assert done.returncode == 0, done.stderr
    assert (counts(tmp_path)["plans"], len(counts(tmp_path)["opened"])) == (2, 2)
