"""Engines in fp8 beside a trainer in bfloat16, on a GPU, and what `algorithm.importance` makes good of it.

    python bench/mismatch_gpu.py [--at-once 6] [--seeds 1 2]

The toy task of bench/algorithms.py with a model whose sizes fp8 takes; each run is `ebbtide run` with an engine of its
own, several at a time on one GPU. Writes results/mismatch_gpu.json and prints its tables.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from bench import mismatch_page  # noqa: E402
from bench.algorithms import merged  # noqa: E402
from bench.digit_task import run_file, write_task  # noqa: E402
from bench.mismatch import Name  # noqa: E402
from bench.record import RESULTS, commit, machine, versions  # noqa: E402

SETTINGS = Path(__file__).with_suffix(".yaml")
RESULT = RESULTS / "mismatch_gpu.json"
SIZES = {"hidden_size": 256, "intermediate_size": 512, "head_dim": 64}
KIND = "Qwen3"  # of a Llama SGLang does not find the factors
DEADLINE_S = 1500.0  # of one run


def main() -> int:
    """Run all, record, print; 1 if one of them failed."""
    settings = yaml.safe_load(SETTINGS.read_text(encoding="utf-8"))
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--at-once", type=int, default=6, help="runs at the same time")
    parser.add_argument("--seeds", nargs="+", type=int, default=settings["seeds"])
    options = parser.parse_args()
    names = wanted(settings, options.seeds)
    with tempfile.TemporaryDirectory() as folder:
        tasks = {seed: write_task(Path(folder) / f"task{seed}", seed, KIND, **SIZES) for seed in options.seeds}
        with ThreadPoolExecutor(options.at_once) as threads:
            found = list(threads.map(lambda name: run_one(name, settings, tasks[name.seed], Path(folder)), names))
    runs = [one for one in found if one is not None]
    record = {"settings": settings, "runs": runs, "commit": commit(), "machine": machine(), "versions": versions()}
    RESULT.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(mismatch_page.accuracies(record), mismatch_page.differences(record), mismatch_page.gaps(record), sep="\n")
    return int(len(runs) < len(names))


def wanted(settings: Mapping[str, Any], seeds: list[int]) -> list[Name]:
    """The runs, seed by seed."""
    return [Name(case, one, seed) for seed in seeds for case, told in settings["cases"].items() for one in told["with"]]


def written(name: Name, settings: Mapping[str, Any], task: Path) -> dict[str, Any]:
    """The run file."""
    return merged(
        run_file(task),
        settings["run"],
        settings["cases"][name.case].get("run", {}),
        {"algorithm": settings["corrections"][name.correction]},
        {"name": "-".join(map(str, name)), "rollout": {"seed": name.seed}, "data": {"seed": name.seed}},
    )


def run_one(name: Name, settings: Mapping[str, Any], task: Path, folder: Path) -> dict[str, Any] | None:
    """What a run gave; None if it failed, whose end is printed."""
    file, run_dir = folder / f"{'-'.join(map(str, name))}.yaml", folder / "-".join(map(str, name))
    file.write_text(yaml.safe_dump(written(name, settings, task)))
    command = [sys.executable, "-m", "launchers", "run", str(file), "--run-dir", str(run_dir)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=DEADLINE_S)
    if done.returncode:
        print(f"=== {run_dir.name}: {done.returncode}\n{(done.stdout + done.stderr)[-3000:]}", flush=True)
        return None
    return {**name._asdict(), **mismatch_page.read(run_dir)}


if __name__ == "__main__":
    sys.exit(main())
