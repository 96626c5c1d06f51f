"""Learning curves of the examples: N seeds of a run file, accuracy by step, reward, engine-trainer log-prob gap.

    python bench/learning.py examples/chain-sum.yaml --seeds 1 2 3 --together
    python bench/learning.py --finished RUN_DIR... --machine "one H100 80 GB"
    python bench/learning.py --peer bench/results/peer_trl_gpu.json
    python bench/learning.py --page calculator others

Writes results/learning.json (one entry per task, variant and seed; a run replaces the entry it repeats) and
results/learning-TASK.png. With --finished nothing is run: the curves are read from run directories made elsewhere. With
--peer the rewards of TRL on the same prompts are drawn beside them. --page prints recorded runs of a task with tools as
the tables of a page, with the rates of one evaluation set.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from bench import curves  # noqa: E402
from bench.record import RESULTS, machine  # noqa: E402
from core.config import load_run_file  # noqa: E402

RUN_TIMEOUT_S = 4 * 3600


def main() -> int:
    """Run or read, then record, draw and print."""
    options = parse(sys.argv[1:])
    if options.page:
        return page(*options.page, options.results)
    made = list(existing(options) if options.finished or options.peer else run_all(options))
    record(made, options.results)
    print(curves.table(made))
    return 0 if len(made) >= expected(options) else 1


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run_files", nargs="*", type=Path, help="run files; each is run once per seed")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument(
        "--together", action="store_true", help="all at once; share the GPU by placement.engine_memory_fraction"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="for every run, as in ebbtide run"
    )
    parser.add_argument("--variant", default="as shipped", help="what --set changes, in two words")
    parser.add_argument("--runs", type=Path, default=Path("runs/learning"), help="where run directories are made")
    parser.add_argument("--finished", nargs="+", type=Path, default=[], help="run directories to read instead")
    parser.add_argument("--peer", type=Path, help="a result of bench/peer_trl.py, for its rewards by step")
    parser.add_argument("--page", nargs=2, metavar=("TASK", "SET"), help="print what is recorded of it, for a page")
    parser.add_argument("--machine", help="with --finished: where those were made")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of learning.json and the pictures")
    options = parser.parse_args(words)
    if bool(options.run_files) == bool(options.finished or options.peer or options.page):
        parser.error("wanted run files, or --finished with run directories, or --peer with a result, or --page")
    if bool(options.finished) != bool(options.machine):
        parser.error("--machine says where the runs of --finished were made: wanted both or neither")
    return options


def expected(options: argparse.Namespace) -> int:
    """How many curves there are to be at least."""
    return len(options.finished) + len(options.run_files) * len(options.seeds) + bool(options.peer)


def existing(options: argparse.Namespace) -> Iterator[curves.Curve]:
    """Curves of runs made elsewhere, and of the peer."""
    if options.peer:
        yield from curves.read_peer(options.peer)
    for run_dir in options.finished:
        yield {**curves.read(run_dir, options.variant), "machine": options.machine}


def run_all(options: argparse.Namespace) -> Iterator[curves.Curve]:
    """Run every file with every seed; a run that fails is named, and its curve left out."""
    jobs = {
        options.runs / f"{file.stem}-{options.variant.replace(' ', '-')}-seed{seed}": (file, seed)
        for file in options.run_files
        for seed in options.seeds
    }
    commands = {run_dir: command(file, seed, run_dir, options.set) for run_dir, (file, seed) in jobs.items()}
    for batch in [list(commands)] if options.together else [[run_dir] for run_dir in commands]:
        processes = {run_dir: subprocess.Popen(commands[run_dir], cwd=ROOT) for run_dir in batch}
        for run_dir, process in processes.items():
            if process.wait(timeout=RUN_TIMEOUT_S) == 0:
                yield {**curves.read(run_dir, options.variant), "machine": machine()}
            else:
                print(f"{run_dir} ended with exit code {process.returncode}: its log is in {run_dir}/attempts/latest")


def command(run_file: Path, seed: int, run_dir: Path, overrides: Sequence[str]) -> list[str]:
    """The command of one run; the seed is that of sampling, of the data's order, and of a source that takes one."""
    seeds = [f"rollout.seed={seed}", f"data.seed={seed}"]
    if "seed" in load_run_file(run_file).data.options:
        seeds.append(f"data.options.seed={seed}")
    settings = [word for override in (*overrides, *seeds) for word in ("--set", override)]
    return [sys.executable, "-m", "launchers", "run", str(run_file), "--run-dir", str(run_dir), *settings]


def page(task: str, held_out: str, folder: Path) -> int:
    """Print a table for each recorded run of the task."""
    recorded = json.loads((folder / "learning.json").read_text(encoding="utf-8"))["curves"]
    for curve in (one for one in recorded if one["task"] == task):
        print(f"{curve['variant']}, seed {curve['seed']}\n\n{curves.page_table(curve, held_out)}\n")
    return 0


def record(made: Sequence[curves.Curve], folder: Path) -> None:
    """Merge the curves into learning.json and draw the tasks that they belong to."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "learning.json"
    known = json.loads(file.read_text(encoding="utf-8"))["curves"] if file.exists() else []
    every = curves.merge(known, made)
    lines = ",\n".join(json.dumps(curve) for curve in every)
    file.write_text(f'{{"curves": [\n{lines}\n]}}\n', encoding="utf-8")
    for task in sorted({curve["task"] for curve in made}):
        curves.draw([curve for curve in every if curve["task"] == task], folder / f"learning-{task}.png")


if __name__ == "__main__":
    sys.exit(main())
