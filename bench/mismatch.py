"""Engines that deliberately disagree with the trainer, and what `algorithm.importance` makes good of it, on a CPU.

    python bench/mismatch.py                          every case of bench/mismatch.yaml, each correction, each seed
    python bench/mismatch.py bf16 four_steps/tis --seeds 2
    python bench/mismatch.py --missing --minutes 4    what the result does not have yet, as far as that goes

Each is a whole run of the toy task of bench/algorithms.py. Writes results/mismatch.json (a run replaces the one of its
case, correction and seed), results/mismatch.png and mismatch.md.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import yaml

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from bench import mismatch_page  # noqa: E402
from bench.algorithm_stage import Stage  # noqa: E402
from bench.algorithms import merged  # noqa: E402
from bench.digit_task import run_file, write_task  # noqa: E402
from bench.record import RESULTS, commit, machine, versions  # noqa: E402
from core.processes.device import num_threads, thread_environment  # noqa: E402

SETTINGS = Path(__file__).with_suffix(".yaml")
PAGE = Path(__file__).with_suffix(".md")
RESULT = RESULTS / "mismatch.json"
SCHEDULE = Path(__file__).with_name("steps_behind.py")


class Name(NamedTuple):
    """What tells runs apart."""

    case: str
    correction: str
    seed: int


def main() -> int:
    """Run what is asked for, record, draw and print."""
    os.environ |= thread_environment(num_threads(1), os.environ)  # before torch is imported
    settings = yaml.safe_load(SETTINGS.read_text(encoding="utf-8"))
    options = parse(sys.argv[1:], settings)
    before = json.loads(RESULT.read_text(encoding="utf-8"))["runs"] if RESULT.exists() else []
    names = wanted(options.names, options.seeds or settings["seeds"], settings)
    if options.missing:
        names = [name for name in names if name not in map(name_of, before)]
    for case, needed in needs(settings).items():
        print(f"{case}: needs {needed}: not run")
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        for run in run_all(names, settings, Path(folder), time.monotonic() + 60 * options.minutes):
            runs.append(run)
            write(recorded(before, runs, settings))
    print(mismatch_page.accuracies(recorded(before, runs, settings)))
    return 0


def parse(words: Sequence[str], settings: Mapping[str, Any]) -> argparse.Namespace:
    """The command line."""
    runnable = runnable_cases(settings)
    known = [*runnable, *map("/".join, pairs(settings))]
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="CASE[/CORRECTION]", help=f"left out: all of {', '.join(runnable)}")
    parser.add_argument("--seeds", nargs="+", type=int, help="of weights, samples and the order of the rows")
    parser.add_argument("--missing", action="store_true", help="only what the result does not have")
    parser.add_argument("--minutes", type=float, default=600.0, help="begin no run after them")
    options = parser.parse_args(words)
    if unknown := set(options.names) - set(known):
        parser.error(f"found {', '.join(sorted(unknown))}; wanted of {', '.join(known)}")
    return options


def needs(settings: Mapping[str, Any]) -> dict[str, str]:
    """What the cases that cannot run here need."""
    return {name: case["needs"] for name, case in settings["cases"].items() if "needs" in case}


def runnable_cases(settings: Mapping[str, Any]) -> list[str]:
    """The cases that need nothing but a CPU."""
    return [name for name in settings["cases"] if name not in needs(settings)]


def pairs(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Cases with their corrections."""
    return [(case, one) for case in runnable_cases(settings) for one in settings["cases"][case]["with"]]


def wanted(names: Sequence[str], seeds: Sequence[int], settings: Mapping[str, Any]) -> list[Name]:
    """The runs of these names, in the order of the settings; seeds come first, so that all cases have one early."""
    chosen = set(names or runnable_cases(settings))
    return [Name(*pair, seed) for seed in seeds for pair in pairs(settings) if {pair[0], "/".join(pair)} & chosen]


def name_of(run: Mapping[str, Any]) -> Name:
    """The name of a recorded run."""
    return Name(run["case"], run["correction"], run["seed"])


def recorded(
    before: Sequence[Mapping[str, Any]], runs: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """The result with these runs in it."""
    by_name = {name_of(run): run for run in (*before, *runs)}
    seeds = sorted({name.seed for name in by_name})
    known = [name for name in wanted((), seeds, settings) if name in by_name]
    missing = ["-".join(map(str, name)) for name in wanted((), settings["seeds"], settings) if name not in by_name]
    facts = {"machine": machine(), "versions": versions()}
    return {"settings": settings, "missing": missing, "runs": [by_name[name] for name in known], **facts}


def write(record: Mapping[str, Any]) -> None:
    """The result, its picture and its page."""
    lines = ",\n".join(json.dumps(run) for run in record["runs"])
    others = json.dumps({key: value for key, value in record.items() if key != "runs"})
    RESULT.write_text(f'{others[:-1]}, "runs": [\n{lines}\n]}}\n', encoding="utf-8")
    mismatch_page.draw(record, RESULT.with_suffix(".png"))
    PAGE.write_text(mismatch_page.page(record), encoding="utf-8")


def run_all(names: Sequence[Name], settings: Mapping[str, Any], folder: Path, end: float) -> Iterator[dict[str, Any]]:
    """What each run gave; those with the same engine share one.

    Args:
        end: a moment of time.monotonic() after which no run begins.
    """
    tasks = {seed: write_task(folder / f"task{seed}", seed) for seed in sorted({name.seed for name in names})}

    def engine_of(name: Name) -> dict[str, Any]:
        return settings["cases"][name.case].get("engine", {})

    in_order = sorted(names, key=lambda name: (name.seed, *map(str, engine_of(name).items())))
    for number, (options, group) in enumerate(groupby(in_order, engine_of)):
        if time.monotonic() > end:
            return
        with Stage(tasks[names[0].seed] / "model", folder / f"engine{number}.log", options) as stage:
            for attempt, name in enumerate(group):
                if time.monotonic() > end:
                    return
                run_dir = folder / "-".join(map(str, name))
                yield {**name._asdict(), **run_one(run_dir, attempt, written(name, settings, tasks[name.seed]), stage)}


def run_one(run_dir: Path, attempt: int, config: Mapping[str, Any], stage: Stage) -> dict[str, Any]:
    """What a run gave, and how long it took."""
    run_dir.mkdir()
    (run_dir / "run.yaml").write_text(yaml.safe_dump(config))
    began = time.monotonic()
    stage.run(run_dir, attempt)
    seconds = round(time.monotonic() - began, 1)
    print(f"{run_dir.name}: {seconds} s", flush=True)
    return {"commit": commit(), "seconds": seconds, **mismatch_page.read(run_dir)}


def written(name: Name, settings: Mapping[str, Any], task: Path) -> dict[str, Any]:
    """The run file."""
    case = settings["cases"][name.case]
    behind = {"schedule": f"{SCHEDULE}:run", "schedule_options": {"steps": case["steps_behind"]}}
    return merged(
        run_file(task),
        settings["run"],
        case.get("run", {}),
        {"placement": behind} if case["steps_behind"] else {},
        {"algorithm": settings["corrections"][name.correction]},
        {"name": "-".join(map(str, name)), "rollout": {"seed": name.seed}, "data": {"seed": name.seed}},
    )


if __name__ == "__main__":
    sys.exit(main())
