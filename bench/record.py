"""What every benchmark shares: repetitions, a table, and a JSON file that says where and with what it was measured."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
LIBRARIES = ("torch", "megatron-core", "transformers", "sglang", "numpy")


def alternate(cases: dict[str, Callable[[], Any]], repetitions: int) -> dict[str, list[float]]:
    """Seconds of each case, the cases in turns so that a drift of the machine hits all alike; one warm-up each."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for repetition in range(repetitions + 1):
        for name, case in cases.items():
            began = time.perf_counter()
            case()
            if repetition:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def report(name: str, seconds: dict[str, list[float]], /, **facts: Any) -> None:
    """Print a table and write results/NAME.json."""
    print(f"{'case':<28}{'median s':>10}{'min s':>10}{'max s':>10}")
    for case, values in seconds.items():
        print(f"{case:<28}{statistics.median(values):>10.3f}{min(values):>10.3f}{max(values):>10.3f}")
    for fact, value in facts.items():
        if not isinstance(value, list):
            print(f"{fact}: {value:.3f}" if isinstance(value, float) else f"{fact}: {value}")
    RESULTS.mkdir(exist_ok=True)
    lists = "repetitions" if "seconds" in facts else "seconds"
    record = {**facts, lists: seconds, "machine": machine(), "versions": versions(), "commit": commit()}
    (RESULTS / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")


def machine() -> dict[str, Any]:
    found = {"processor": platform.processor() or platform.machine(), "cores": len(os.sched_getaffinity(0))}
    try:
        question = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
        found["gpus"] = subprocess.run(question, capture_output=True, text=True, check=True).stdout.strip().splitlines()
    except (OSError, subprocess.CalledProcessError):
        pass
    return found


def versions(libraries: Sequence[str] = LIBRARIES) -> dict[str, str]:
    """Versions of the packages that are installed."""
    found = {}
    for library in libraries:
        with suppress(PackageNotFoundError):
            found[library] = version(library)
    return found


def commit() -> str:
    """Commit of the files beside this one; EBBTIDE_COMMIT names it where they were copied without their repository."""
    if told := os.environ.get("EBBTIDE_COMMIT"):
        return told
    command = ["git", "-C", str(RESULTS.parent), "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
