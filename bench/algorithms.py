"""Every algorithm on one task, on the CPU, through the real loop: a toy from random weights, or the demo with SmolLM2.

    python bench/algorithms.py                    all of bench/algorithms.yaml: the toy, from chance to nine of ten
    python bench/algorithms.py grpo gspo
    python bench/algorithms.py --settings bench/algorithms_smollm2.yaml --seeds 1 2

Each is a whole run: run file, trainer, engine, rewards, evaluation, journal, checkpoint. This process is the trainer
rank of all of them, one after the other, and they share one engine, whose start would take longer than a run of the
toy. Settings NAME.yaml give results/NAME.json, results/NAME.png and NAME.md, written after each run, which replaces the
one of its algorithm and seed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from bench import algorithm_page, algorithm_seeds, digit_task, sums_task  # noqa: E402
from bench.algorithm_stage import Stage  # noqa: E402
from bench.record import RESULTS, commit, machine, versions  # noqa: E402
from core.pretrained.locate import locate  # noqa: E402
from core.processes.device import num_threads, thread_environment  # noqa: E402

SETTINGS = Path(__file__).with_suffix(".yaml")
TASKS = {"digits": (digit_task, algorithm_page), "sums": (sums_task, algorithm_seeds)}
RUNS, TEACHER = "runs", "teacher"


@dataclass(frozen=True)
class Comparison:
    """A settings file: a task, and the algorithms and seeds with which it is run.

    Attributes:
        task: writes what its runs need, and has what their run files share.
        page: makes table, picture and page of a record.
        settings: the file's keys.
        result, written: files of the record and of the page.
    """

    task: ModuleType
    page: ModuleType
    settings: Mapping[str, Any]
    result: Path
    written: Path

    @classmethod
    def of(cls, file: Path) -> Comparison:
        """The comparison that a settings file describes."""
        settings = yaml.safe_load(file.read_text(encoding="utf-8"))
        task, page = TASKS[settings["task"]]
        return cls(task, page, settings, RESULTS / f"{file.stem}.json", file.with_suffix(".md"))

    def run_file(self, name: str, seed: int, task: Path, runs: Path) -> dict[str, Any]:
        """The run file of an algorithm.

        Args:
            task: what the task has written.
            runs: the folder with the runs of this seed, those of teachers among them.
        """
        parts = (self.task.run_file(task), self.settings["run"], changes(self.settings["algorithms"][name], runs))
        return merged(*parts, {"name": name, "rollout": {"seed": seed}, "data": {"seed": seed}})

    def record(self, runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """What is on record with these runs in it; each replaces the one of its name and seed."""
        before = json.loads(self.result.read_text(encoding="utf-8"))["runs"] if self.result.exists() else []
        found = {(run["name"], run["seed"]): run for run in (*before, *runs)}
        wanted = [(name, seed) for name in self.settings["algorithms"] for seed in self.settings["seeds"]]
        return {
            "target": self.settings["target"],
            "runs": [found[one] for one in wanted if one in found],
            "missing": [one for one in wanted if one not in found],
            "machine": machine(),
            "versions": versions(),
        }

    def write(self, record: Mapping[str, Any]) -> None:
        """The record, its picture and its page."""
        self.result.write_text(json.dumps(record) + "\n", encoding="utf-8")
        self.page.draw(record, self.result.with_suffix(".png"))
        self.written.write_text(self.page.page(record), encoding="utf-8")


def main() -> int:
    """Run the algorithms asked for, record, draw and print; 1 if one stays below the target."""
    os.environ |= thread_environment(num_threads(1), os.environ)  # before torch is imported
    options, comparison = parse(sys.argv[1:])
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        for run in run_all(comparison, options.names, options.seeds, Path(folder)):
            runs.append(run)
            comparison.write(comparison.record(runs))
    target = comparison.settings["target"]
    print(comparison.page.table({"target": target, "runs": runs}))
    return 0 if all(run["accuracy"][-1] > target for run in runs) else 1


def parse(words: Sequence[str]) -> tuple[argparse.Namespace, Comparison]:
    """The command line, and the comparison that it names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="algorithms of the settings; left out: all")
    parser.add_argument("--settings", type=Path, default=SETTINGS, metavar="FILE", help="task, algorithms and seeds")
    parser.add_argument("--seeds", nargs="+", type=int, help="of the toy's weights, the samples, the order of the rows")
    options = parser.parse_args(words)
    comparison = Comparison.of(options.settings)
    for given, key in ((options.names, "algorithms"), (options.seeds or (), "seeds")):
        known = list(comparison.settings[key])
        if unknown := [str(one) for one in given if one not in known]:
            wanted = ", ".join(map(str, known))
            parser.error(f"found {', '.join(unknown)}; wanted of {wanted}: add it to {key} in {options.settings}")
    options.names = options.names or list(comparison.settings["algorithms"])
    options.seeds = options.seeds or comparison.settings["seeds"]
    return options, comparison


def run_all(
    comparison: Comparison, names: Sequence[str], seeds: Sequence[int], folder: Path
) -> Iterator[dict[str, Any]]:
    """What each run gave."""
    tasks = {seed: comparison.task.write_task(folder / f"task-{seed}", seed) for seed in seeds}
    every = [(name, seed) for seed in seeds for name in teachers_first(names, comparison.settings["algorithms"])]
    first = comparison.task.run_file(tasks[seeds[0]])
    with Stage(locate(first["model"]["path"]), folder / "engine.log") as stage:
        for number, (name, seed) in enumerate(every):
            runs = folder / f"{RUNS}-{seed}"
            run_dir = runs / name
            run_dir.mkdir(parents=True)
            (run_dir / "run.yaml").write_text(yaml.safe_dump(comparison.run_file(name, seed, tasks[seed], runs)))
            began = time.monotonic()
            stage.run(run_dir, number)
            seconds = round(time.monotonic() - began, 1)
            shutil.rmtree(run_dir / "checkpoints")  # a model's size each
            yield {"name": name, "seed": seed, "commit": commit(), "seconds": seconds, **algorithm_page.read(run_dir)}
            print(f"{name}, seed {seed}: {seconds} s", flush=True)


def teachers_first(names: Sequence[str], algorithms: Mapping[str, Any]) -> list[str]:
    """The names, each behind the run that its model learns from."""
    found: dict[str, None] = {}
    for name in names:
        teacher = algorithms[name].get(TEACHER)
        found |= dict.fromkeys([teacher, name] if teacher else [name])
    return list(found)


def changes(settings: Mapping[str, Any], runs: Path) -> dict[str, Any]:
    """What an algorithm changes in the run file, where the folder has the runs of its teachers."""
    own = {key: value for key, value in settings.items() if key != TEACHER}
    teacher = settings.get(TEACHER)
    return merged(own, {"model": {"reference_path": str(runs / teacher / "hf")}}) if teacher else own


def merged(*parts: Mapping[str, Any]) -> dict[str, Any]:
    """Mappings laid over each other, the last on top; sections are merged key by key."""
    result: dict[str, Any] = {}
    for part in parts:
        for key, value in part.items():
            below = result.get(key)
            both = isinstance(value, Mapping) and isinstance(below, dict)
            result[key] = merged(below, value) if both and below is not None else value
    return result


if __name__ == "__main__":
    sys.exit(main())
