"""Every algorithm on a toy task, from random weights on the CPU, through the real loop: from chance to nine of ten.

    python bench/algorithms.py                    all of bench/algorithms.yaml
    python bench/algorithms.py grpo gspo --seed 2

Each is a whole run: run file, trainer, engine, rewards, evaluation, journal, checkpoint. This process is the trainer
rank of all of them, one after the other, and they share one engine, whose start would take longer than a run.
Writes results/algorithms.json (a run replaces the one of its name), results/algorithms.png and algorithms.md.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from bench import algorithm_page  # noqa: E402
from bench.digit_task import run_file, write_task  # noqa: E402
from bench.record import RESULTS, commit, machine, versions  # noqa: E402

SETTINGS = Path(__file__).with_suffix(".yaml")
PAGE = Path(__file__).with_suffix(".md")
RESULT = RESULTS / "algorithms.json"
KEY = "key"
RUNS, TEACHER = "runs", "teacher"


def main() -> int:
    """Run the algorithms asked for, record, draw and print; 1 if one stays below the target."""
    settings = yaml.safe_load(SETTINGS.read_text(encoding="utf-8"))
    options = parse(sys.argv[1:], tuple(settings["algorithms"]))
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        for run in run_all(options.names or list(settings["algorithms"]), options.seed, settings, Path(folder)):
            runs.append(run)
            write(recorded(runs, options.seed, settings))
    print(algorithm_page.table({"target": settings["target"], "runs": runs}))
    return 0 if all(run["accuracy"][-1] > settings["target"] for run in runs) else 1


def write(record: Mapping[str, Any]) -> None:
    """The result, its picture and its page."""
    RESULT.write_text(json.dumps(record) + "\n", encoding="utf-8")
    algorithm_page.draw(record, RESULT.with_suffix(".png"))
    PAGE.write_text(algorithm_page.page(record), encoding="utf-8")


def recorded(runs: Sequence[Mapping[str, Any]], seed: int, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The result with these runs in it; each replaces the one of its name, if that has the same seed."""
    before = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {"seed": seed, "runs": []}
    by_name = {run["name"]: run for run in (*(before["runs"] if before["seed"] == seed else ()), *runs)}
    return {
        "target": settings["target"],
        "seed": seed,
        "runs": [by_name[name] for name in settings["algorithms"] if name in by_name],
        "missing": [name for name in settings["algorithms"] if name not in by_name],
        "machine": machine(),
        "versions": versions(),
        "commit": commit(),
    }


def parse(words: Sequence[str], known: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which: {', '.join(known)}; left out: all")
    parser.add_argument("--seed", type=int, default=1, help="of the weights, the samples and the order of the rows")
    options = parser.parse_args(words)
    if unknown := set(options.names) - set(known):
        parser.error(f"found {', '.join(sorted(unknown))}; wanted of {', '.join(known)}")
    return options


def run_all(names: Sequence[str], seed: int, settings: Mapping[str, Any], folder: Path) -> Iterator[dict[str, Any]]:
    """What each run gave."""
    task = write_task(folder / "task", seed)
    with Stage(task / "model", folder / "engine.log") as stage:
        for number, name in enumerate(teachers_first(names, settings["algorithms"])):
            run_dir = folder / RUNS / name
            run_dir.mkdir(parents=True)
            parts = (run_file(task), settings["run"], changes(settings["algorithms"][name], folder))
            written = merged(*parts, {"name": name, "rollout": {"seed": seed}, "data": {"seed": seed}})
            (run_dir / "run.yaml").write_text(yaml.safe_dump(written))
            began = time.monotonic()
            stage.run(run_dir, number)
            yield {"name": name, "seconds": round(time.monotonic() - began, 1), **algorithm_page.read(run_dir)}
            print(f"{name}: {time.monotonic() - began:.1f} s", flush=True)


def teachers_first(names: Sequence[str], algorithms: Mapping[str, Any]) -> list[str]:
    """The names, each behind the run that its model learns from."""
    found: dict[str, None] = {}
    for name in names:
        teacher = algorithms[name].get(TEACHER)
        found |= dict.fromkeys([teacher, name] if teacher else [name])
    return list(found)


def changes(settings: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """What an algorithm changes in the run file, where the folder has the runs of its teachers."""
    own = {key: value for key, value in settings.items() if key != TEACHER}
    teacher = settings.get(TEACHER)
    return merged(own, {"model": {"reference_path": str(folder / RUNS / teacher / "hf")}}) if teacher else own


def merged(*parts: Mapping[str, Any]) -> dict[str, Any]:
    """Mappings laid over each other, the last on top; sections are merged key by key."""
    result: dict[str, Any] = {}
    for part in parts:
        for key, value in part.items():
            below = result.get(key)
            both = isinstance(value, Mapping) and isinstance(below, dict)
            result[key] = merged(below, value) if both and below is not None else value
    return result


class Stage:
    """What the runs share: a store, and an engine that is published in it anew for each of them, as another attempt."""

    def __init__(self, model_dir: Path, log: Path) -> None:
        self._model_dir, self._log = model_dir, log

    def __enter__(self) -> Stage:
        from core.processes.rendezvous import Address, Rendezvous
        from tests.support.engine_servers import start_engine

        listener = socket.create_server(("127.0.0.1", 0))
        self._address = Address(*listener.getsockname())
        self._served = Rendezvous(self._address, 0, KEY, listener=listener)
        self._engine = start_engine(self._model_dir, self._log, KEY)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "EBBTIDE_API_KEY": KEY}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        return self

    def __exit__(self, *_: object) -> None:
        self._engine.process.kill()
        self._engine.process.wait(30)

    def run(self, run_dir: Path, attempt: int) -> None:
        """One run, whose trainer rank is this process."""
        from core.config.layout import engine_name
        from core.processes.rendezvous import Member, Rendezvous
        from launchers.rank.rank_run import RankRun

        engine, store = self._engine, Rendezvous(self._address, attempt, KEY)
        url = f"http://{engine.spec.host}:{engine.spec.port}"
        store.publish(Member("engine", engine_name(0, 0), 0, engine.spec.host, engine.process.pid, url))
        seat = argparse.Namespace(
            run_dir=run_dir, attempt=attempt, node=0, store=str(self._address), host="127.0.0.1", ends_at=None
        )
        rank_run = RankRun(seat)
        rank_run.run()
        assert rank_run.parts is not None
        rank_run.parts.trainer.close()  # type: ignore[attr-defined]  # the real one


if __name__ == "__main__":
    sys.exit(main())
