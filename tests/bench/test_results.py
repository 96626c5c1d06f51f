"""What results say of themselves: a reader finds the code that was measured."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def git(*words: str) -> str:
    done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False, timeout=60)
    return done.stdout.strip() if done.returncode == 0 else ""


def test_commits_of_results_are_in_the_history() -> None:
    """A branch that is based anew has other commits: results then name the one that has their code."""
    if git("rev-parse", "--is-shallow-repository") != "false":
        pytest.skip("the history is not here")
    history = git("rev-list", "HEAD").splitlines()
    lost, seen = {}, 0
    for path in sorted((ROOT / "bench" / "results").glob("*.json")):
        found = json.loads(path.read_text())
        if isinstance(found, dict) and "commit" in found:
            commit, seen = found["commit"].removesuffix("-dirty"), seen + 1
            if len(commit) < 7 or not any(one.startswith(commit) for one in history):
                lost[path.name] = commit
    assert seen > 50
    assert lost == {}
