"""Mutation tests of the pure modules: small faults put into them one at a time, and which of them no fast test notices.

`make mutants` runs all of mutants.yaml and writes mutation.md; `python bench/mutants.py modelcfg` runs one entry and
writes that part anew. mutmut makes the mutants and runs, for each, the tests that reach its function, in forks of one
process that has loaded torch already: a third of a second each. (cosmic-ray starts a process for each: ten times that.)
It works on a copy of the tree, so nothing is changed in this one.

Left out, because mutmut has no way to them: constants of a module, defaults of a dataclass, functions with a decorator
(properties, validators); because they are no behaviour: words of messages, type annotations.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from bench.mutant_report import keep, report, show  # noqa: E402
from bench.mutant_sources import MESSAGES, Mutant, mutants_of  # noqa: E402

TABLE = Path(__file__).with_suffix(".yaml")
SEED = 0
SETTINGS = """
[tool.mutmut]
source_paths = ["common", "core", "hpc", "launchers", "modelcfg"]
also_copy = ["bench", "docs", "examples", "README.md", "Makefile"]
only_mutate = {files}
do_not_mutate_patterns = {messages}
pytest_add_cli_args_test_selection = {tests}
pytest_add_cli_args = ["-p", "no:xdist", "-p", "no:rerunfailures"]
use_git_change_detection = false
timeout_constant = 3.0
timeout_multiplier = 8.0
"""
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",  # a fork of a process whose OpenMP has threads hangs
    "EBBTIDE_CACHE": str(ROOT / ".cache" / "ebbtide"),
    "PYTHONDONTWRITEBYTECODE": "1",
}


def main() -> None:
    options = _options()
    deadline = time.monotonic() + 60 * options.minutes
    table = yaml.safe_load(TABLE.read_text(encoding="utf-8"))
    found: dict[Mutant, int | None] = {}
    with tempfile.TemporaryDirectory(prefix="ebbtide-mutants-") as folder, contextlib.chdir(folder):
        _copy_tree(Path(folder))
        for entry in options.entries or table:
            found |= _run(entry, table[entry], options, deadline)
    if options.sample:
        show(found)
    else:
        keep(found)
        sys.exit(report(found))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("entries", nargs="*", help="of mutants.yaml; without: all")
    parser.add_argument("--sample", type=int, help="largest number of mutants of an entry, always the same ones")
    parser.add_argument("--minutes", type=float, default=20, help="then it stops (20)")
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    return parser.parse_args()


def _copy_tree(folder: Path) -> None:
    """Everything that git would not ignore, as it is now."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\0"):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)


def _run(entry: str, tests: Sequence[str], options: argparse.Namespace, deadline: float) -> dict[Mutant, int | None]:
    """Mutants of one entry -> mutmut's exit code of the tests; None: not run. The working directory is the copy."""
    path = Path(entry)
    files = sorted(map(str, path.rglob("*.py"))) if path.is_dir() else [entry]
    settings = SETTINGS.format(files=json.dumps(files), messages=json.dumps(MESSAGES), tests=json.dumps(list(tests)))
    Path("pyproject.toml").write_text((ROOT / "pyproject.toml").read_text(encoding="utf-8") + settings, "utf-8")
    mutants = [mutant for file in files for mutant in mutants_of(Path(file))]
    if options.sample and len(mutants) > options.sample:
        mutants = random.Random(SEED).sample(mutants, options.sample)
    print(f"{entry}: {len(mutants)} mutants", flush=True)
    shutil.rmtree("mutants", ignore_errors=True)
    if mutants:
        _mutmut(mutants, options.processes, deadline)
    codes: dict[str, int | None] = {}
    for meta in Path("mutants").rglob("*.py.meta"):
        codes |= json.loads(meta.read_text(encoding="utf-8"))["exit_code_by_key"]
    return {mutant: codes.get(mutant.name) for mutant in mutants}


def _mutmut(mutants: Sequence[Mutant], processes: int, deadline: float) -> None:
    """Run the tests of some mutants, until the deadline; what was found by then is in the folder `mutants`."""
    command = [Path(sys.executable).with_name("mutmut"), "run", "--max-children", str(processes)]
    with open("mutmut.log", "wb") as log:
        process = subprocess.Popen(
            [*command, *(mutant.name for mutant in mutants)],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | ENVIRONMENT,
            start_new_session=True,
        )
        try:
            code = process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            return
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if code:
        sys.exit(
            Path("mutmut.log").read_text(encoding="utf-8", errors="replace")[-4000:] + "\nmutmut failed: see above"
        )


if __name__ == "__main__":
    main()
