"""The commands in README and docs: each is run, on a tiny run in place of the big ones; links lead somewhere.

Those of docs/slurm.md need a cluster: tests/slurm/test_docs_cluster.py runs them.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from itertools import product
from pathlib import Path

import pytest

from core.config.sections.data import DataConfig
from core.config.sections.reward import RewardConfig
from core.data import load_rows
from core.doors import REWARD
from core.reward.sample import RewardInput
from core.reward.scorers import build_scorer
from tests.support.tiny_runs import ebbtide, write_run

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
ON_A_CLUSTER = ROOT / "docs" / "slurm.md"
# .ci/run runs these themselves
IN_CI = {"make demo", "make docs", "make lint", "make install", "make slurm"}
TESTS = {"make test", "make test-slow"}  # in .ci/run the same tests, side by side
BENCH = {"make bench", "make mutants"}  # minutes of measuring; their parts are run by hand
CONTAINERS = {"make containers"}  # what it runs, tests/test_containers.py runs with builders that only tell
STRESS = {"make stress MINUTES=30"}  # as long as one likes; a single seed of it is a test of tests/stress


def commands_of(page: Path) -> list[str]:
    """Every line of a page's bash blocks, in order, without its comment."""
    blocks = re.findall(r"```bash\n(.*?)```", page.read_text(), re.DOTALL)
    lines = [line.partition("#")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line]


def commands() -> list[str]:
    """The commands of all pages that need no cluster, each once."""
    return sorted({line for page in PAGES if page != ON_A_CLUSTER for line in commands_of(page)})


def in_ci() -> set[str]:
    """The commands of `.ci/run` that it ends without if they fail."""
    return {line.strip().removesuffix(' || failed="make test-real"') for line in (ROOT / ".ci" / "run").open()}


def test_every_documented_command_is_one_that_some_test_runs() -> None:
    known = IN_CI | TESTS | BENCH | CONTAINERS | STRESS | {"make help"}
    unknown = [line for line in commands() if line not in known and not line.startswith(("ebbtide ", "python "))]
    assert unknown == []
    assert in_ci() >= IN_CI


def test_ci_runs_the_tests_of_make_test_and_make_test_slow_once_each() -> None:
    """By every combination of marks."""
    assert in_ci() >= {"make test-light", "make test-real"}
    recipes = subprocess.run(
        ["make", "--dry-run", "test", "test-slow", "test-light", "test-real"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    fast, slow, light, real = re.findall('pytest .* -m "?([^"\n]*)"?$', recipes, re.MULTILINE)
    names = ("slow", "engine", "run", "slurm")
    for values in product((True, False), repeat=len(names)):
        marks = dict(zip(names, values, strict=True))
        by_hand, by_ci = ([eval(one, {}, marks) for one in pair] for pair in ((fast, slow), (light, real)))
        assert sum(by_hand) == sum(by_ci) == 1, marks


@pytest.mark.run
def test_ebbtide_commands_do_what_the_pages_say(tmp_path: Path) -> None:
    run_file = write_run(tmp_path, rollout={"num_rollout": 4})
    run_dir = tmp_path / "out"
    order = {"run": 0, "resume": 1}
    # tests/runs/test_half_runs.py and test_profile.py start the engines for them, test_convert.py has quantised weights
    elsewhere = ("ebbtide eval ", "ebbtide profile ", "ebbtide convert ")
    lines = [line for line in commands() if line.startswith("ebbtide ") and not line.startswith(elsewhere)]
    for line in sorted(lines, key=lambda line: order.get(line.split()[1], 2)):
        words = [_stand_in(word, run_file, run_dir) for word in shlex.split(line)[1:]]
        if words[0] == "run":
            words += ["--run-dir", str(run_dir)]
        if words[0] == "replay":
            words += ["--run-dir", str(tmp_path / "replayed")]
        done = ebbtide(*words)
        assert done.returncode == 0, (line, done.stdout, done.stderr)


def test_the_functions_of_the_data_page_do_what_it_says(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "rewards-and-data.md").read_text()
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        (tmp_path / block.split()[1].rstrip(",")).write_text(block)
    rows = load_rows(DataConfig(source="python", path=f"{tmp_path}/rows.py:sums", options={"most": 2}))
    assert [(row["prompt"], row["label"]) for row in rows][-1] == ("2 + 2 =", "4")
    scorer = build_scorer(RewardConfig(type="python", path=f"{tmp_path}/reward.py:score", options={"longest": 3}))
    assert scorer(RewardInput("2 + 2 =", " = 4", label="4")) == pytest.approx(0.99)
    mapping = build_scorer(RewardConfig(type=f"{tmp_path}/parts.py:score"))
    parts = {"total": 1.05, "right": 1.0, "brief": 0.5}
    sample = RewardInput("2 + 2 =", " = 4", label="4", num_response_tokens=5, max_response_tokens=10)
    assert mapping(sample) == pytest.approx(parts)
    types = page[page.index("| `reward.type` |") : page.index("| of `sample` |")]
    assert {*REWARD.builtins, "python"} == set(re.findall(r"^\| `(\w+)` \| ", types, re.M))


def test_links_and_pictures_exist() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_make_help_lists_every_target() -> None:
    text = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", text, re.MULTILINE))
    documented = set(re.findall(r"^([a-z-]+):.*##", text, re.MULTILINE))
    every = {
        "help",
        "install",
        "slurm",
        "demo",
        "screenshots",
        "session",
        "docs",
        "containers",
        "test",
        "test-slow",
        "test-light",
        "test-real",
        "test-all",
        "stress",
        "test-gpu",
        "lint",
        "bench",
        "mutants",
        "clean",
    }
    assert targets == documented == every


def _stand_in(word: str, run_file: Path, run_dir: Path) -> str:
    if word.startswith("examples/") and word.endswith(".yaml"):
        assert (ROOT / word).exists()
        return str(run_file)
    if word.startswith("models/"):  # a new folder
        return str(run_file.parent / word)
    return str(run_dir) if word.startswith("runs/") else word
