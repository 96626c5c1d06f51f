"""One seed of the stress program, as `make stress` takes it: the program works, and this case is as it has to be."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.stress.case import case_of
from tests.stress.disk import why_not

ROOT = Path(__file__).parents[2]
SEED = 4  # an engine is killed while the run starts: the shortest of all


@pytest.mark.run
@pytest.mark.slow
def test_a_seed() -> None:
    """Outside of /tmp, as a case has one of its own."""
    with tempfile.TemporaryDirectory(prefix="ebbtide-test.", dir="/var/tmp") as folder:
        play_a_seed(Path(folder))


def play_a_seed(tmp_path: Path) -> None:
    if (reason := why_not(tmp_path)) is not None:
        pytest.skip(reason)
    assert case_of(SEED).place == "local"
    recipe = subprocess.run(
        ["make", "--no-print-directory", "--dry-run", "stress", "MINUTES=5"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()[-1]
    assert recipe.split()[1:] == ["-m", "tests.stress", "--minutes", "5"]
    command = [sys.executable, *recipe.split()[1:], "--seeds", str(SEED), "--folder", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400)
    line, summary = map(json.loads, done.stdout.splitlines())
    assert line["violations"] == [], line
    assert line["done"], line
    assert summary["summary"]["failed seeds"] == []
    assert done.returncode == 0
