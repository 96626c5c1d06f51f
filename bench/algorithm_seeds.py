"""What bench/algorithms.py makes of the demo's runs: held-out accuracy by step and seed: table, picture, page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from bench.curves import COLOURS

HEAD = """# Algorithms on the demo's task

Made by `python bench/algorithms.py --settings bench/algorithms_smollm2.yaml`: {minutes:.0f} minutes of runs in all on
{cores} CPU cores, which others used too. SmolLM2-135M learns sums of two digits, as in `make demo`, from 64 samples a
step. Accuracy is that of greedy answers to the 20 pairs that are not trained on, so one pair is 0.05.

## Held-out accuracy by step

Mean over the seeds, and from the least to the greatest of them:

"""
ALONE = """
The same, seed by seed, and the mean reward of the samples of the first and the last step, which are drawn at
temperature 1:

"""
TAIL = """
![Held-out accuracy by step](results/algorithms_smollm2.png)

Each algorithm has the advantage, loss, means and clip range of its recipe in `examples/recipes`, without the KL to a
reference, which with a weight of 0.001 would not show in a run this short. Learning rate (4e-5, linear to 0),
temperature and the number of samples are the demo's for all. A step has two optimiser steps of 32 samples, so that
there is something to clip; `rloo`, which clips nothing, has one of 64, as in its recipe. `reinforce_plus_plus` has 64
prompts of one sample, as in its recipe, the others 8 prompts of 8.
"""


def by_name(runs: Iterable[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """The runs of each algorithm."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for run in runs:
        found.setdefault(run["name"], []).append(run)
    return found


def table(record: Mapping[str, Any]) -> str:
    """One row per algorithm: accuracy at each evaluation, over its seeds."""
    rows = []
    for name, runs in by_name(record["runs"]).items():
        over_seeds = zip(*(run["accuracy"] for run in runs), strict=True)
        rows.append([f"`{name}`", str(len(runs)), *map(_spread, over_seeds)])
    return _table(["algorithm", "seeds", *_steps(record)], rows)


def ends(record: Mapping[str, Any]) -> str:
    """A sentence on where the runs end."""
    runs, target = record["runs"], record["target"]
    last = [run["accuracy"][-1] for run in runs]
    above = sum(accuracy > target for accuracy in last)
    others = [f"`{run['name']}` with seed {run['seed']}" for run in runs if run["accuracy"][-1] <= target]
    told = f"After the last step {above} of {len(runs)} runs are above {target}, and none is below {min(last):.2f}"
    return told + (f"; not above it: {', '.join(others)}" if others else "") + ".\n"


def alone(record: Mapping[str, Any]) -> str:
    """One row per run."""
    rows = []
    for run in record["runs"]:
        figures = _figures([*run["accuracy"], run["rewards"][0], run["rewards"][-1]])
        rows.append([f"`{run['name']}`", str(run["seed"]), *figures, f"{run['seconds']:.0f}"])
    return _table(["algorithm", "seed", *_steps(record), "reward at first", "at last", "s"], rows)


def page(record: Mapping[str, Any]) -> str:
    """The page."""
    minutes = sum(run["seconds"] for run in record["runs"]) / 60
    missing = ", ".join(f"`{name}` {seed}" for name, seed in record["missing"])
    parts = [HEAD.format(minutes=minutes, cores=record["machine"]["cores"]), table(record), "\n", ends(record)]
    parts += [ALONE, alone(record)]
    return "".join([*parts, f"\nNot measured so far, by seed: {missing}.\n" if missing else "", TAIL])


def draw(record: Mapping[str, Any], path: Path) -> None:
    """Mean accuracy by step, and its range over the seeds as a band, a panel per algorithm, as a small PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    found = by_name(record["runs"])
    figure, axes = pyplot.subplots(2, 3, figsize=(9, 5), sharex=True, sharey=True, layout="constrained", squeeze=False)
    for axis, (name, runs), colour in zip(axes.flat, found.items(), COLOURS, strict=False):
        steps, over_seeds = runs[0]["evaluated"], list(zip(*(run["accuracy"] for run in runs), strict=True))
        axis.plot(steps, list(map(mean, over_seeds)), color=colour, marker=".")
        axis.fill_between(steps, list(map(min, over_seeds)), list(map(max, over_seeds)), color=colour, alpha=0.2)
        axis.axhline(record["target"], color="#999999", linewidth=0.8)
        axis.set_title(f"{name} ({len(runs)} seed(s))", fontsize=9)
        axis.set(ylim=(0, 1.02))
        axis.grid(alpha=0.3)
    figure.supxlabel("step", fontsize=9)
    figure.supylabel("held-out accuracy: mean and range", fontsize=9)
    figure.savefig(path, dpi=72)
    pyplot.close(figure)


def _steps(record: Mapping[str, Any]) -> list[str]:
    return [str(step) for step in record["runs"][0]["evaluated"]]


def _spread(values: Sequence[float]) -> str:
    equal = min(values) == max(values)
    return f"{mean(values):.2f}" + ("" if equal else f" ({min(values):.2f} to {max(values):.2f})")


def _figures(values: Iterable[float]) -> list[str]:
    return [f"{value:.2f}" for value in values]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
