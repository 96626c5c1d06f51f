"""Learning curves: read from finished run directories, kept in one JSON file, drawn as PNG. For bench/learning.py.

A curve is what one run did; runs of one task and one variant differ by their seeds. Every figure is one that the run
itself logged in its progress.jsonl.
"""

from __future__ import annotations

import json
import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import yaml

Curve = dict[str, Any]
PER_STEP = {  # name in the JSON file: name in the progress file
    "reward": "rollout/raw_reward",
    "response_tokens": "rollout/response_len/mean",
    "groups_without_spread": "rollout/zero_std/count",
    "entropy": "train/entropy_loss",
    "logprob_gap": "train/train_rollout_logprob_abs_diff",
    "logprob_gap_max": "train/train_rollout_logprob_abs_diff_max",
}
OF_DIALOGUES = {  # likewise, of runs whose model speaks in turns
    "turns": "rollout/turns/mean",
    "calls": "rollout/tool_calls/mean",
    "valid_calls": "rollout/tool_calls/valid_ratio",
}
EVALUATED = {  # name in the JSON file: rate of an evaluation set; beside the accuracy where there are dialogues
    "turns_of": "turns/mean",
    "valid_calls_of": "tool_calls/valid_ratio",
}
PANELS = {
    "reward": "mean reward of the samples",
    "entropy": "entropy per token, nats",
    "logprob_gap": "engine-trainer log-prob gap, mean",
}
PANELS_OF_DIALOGUES = {  # in the place of those
    "reward": "mean reward of the samples",
    "valid_calls": "share of episodes whose calls were all valid",
    "entropy": "entropy per token, nats",
}
LINES = ("-", "--", ":")
COLOURS = (
    *("#1b6ca8", "#c8553d", "#588157", "#7b4b94", "#b08900", "#555555"),
    *("#d4a5c9", "#00a6a6", "#e8890c", "#000000", "#8fbf3f", "#e0569b"),
    *("#7a4b2a", "#4257d0", "#9c9c3c"),
)


def read(run_dir: Path, variant: str) -> Curve:
    """The curve of a run, also of one that did not reach its end ("complete" says so).

    Raises:
        ValueError: no run directory, or not a step in it.
    """
    if not (run_dir / "run.yaml").is_file() or not (run_dir / "progress.jsonl").is_file():
        raise ValueError(f"{run_dir} has no run.yaml and progress.jsonl; wanted the directory of a run")
    config = yaml.safe_load((run_dir / "run.yaml").read_text(encoding="utf-8"))
    events = [json.loads(line) for line in (run_dir / "progress.jsonl").read_text(encoding="utf-8").splitlines()]
    steps = {event["step"]: event["metrics"] for event in events if event["event"] == "step"}
    if not steps:
        raise ValueError(f"{run_dir} has no step yet; wanted a run that has learnt something")
    evaluations = {event["step"]: event["results"] for event in events if event["event"] == "eval"}
    dialogues = OF_DIALOGUES["turns"] in steps[min(steps)]
    per_step = {**PER_STEP, **(OF_DIALOGUES if dialogues else {})}
    return {
        "task": config["name"],
        "variant": variant,
        "seed": config["rollout"]["seed"],
        "complete": any(event["event"] == "end" for event in events),
        "accuracy": _by_set(evaluations, "accuracy"),
        **{name: _by_set(evaluations, rate) for name, rate in EVALUATED.items() if dialogues},
        "steps": sorted(steps),
        **{name: [_rounded(steps[step].get(key)) for step in sorted(steps)] for name, key in per_step.items()},
        "median_step_s": _rounded(statistics.median(metrics["perf/step_time"] for metrics in steps.values())),
        **_made_with(run_dir),
    }


def _made_with(run_dir: Path) -> Curve:
    """Versions, commit and changed files of the last attempt; nothing, where it has not noted them."""
    notes = sorted((run_dir / "attempts").glob("[0-9]*/provenance.json"), key=lambda path: int(path.parent.name))
    if not notes:
        return {}
    noted = json.loads(notes[-1].read_text(encoding="utf-8"))
    return {"versions": noted["packages"], "commit": noted["commit"], "dirty": noted["dirty"]}


def read_peer(result: Path) -> list[Curve]:
    """Rewards by step of TRL's runs, from a result of bench/peer_trl.py: no evaluations, and nothing but rewards."""
    recorded = json.loads(result.read_text(encoding="utf-8"))
    where = [f"{recorded['machine']['cores']} cores", *recorded["machine"].get("gpus", ())]
    of_all = {
        "task": recorded["task"],
        "seed": recorded["settings"][0]["rollout"]["seed"],
        "complete": True,
        "accuracy": {},
        "machine": ", ".join(where),
        "versions": recorded["trl_versions"],
    }
    runs = [run for run in recorded["runs"] if run["name"] != "ebbtide" and "steps" in run]
    return [{**of_all, "variant": run["name"], **_of_steps(run["steps"])} for run in runs]


def _of_steps(steps: Sequence[dict[str, float]]) -> Curve:
    return {
        "steps": list(range(len(steps))),
        **{name: [None] * len(steps) for name in PER_STEP},
        "reward": [_rounded(step["reward"]) for step in steps],
        "median_step_s": _rounded(statistics.median(step["seconds"] for step in steps)),
    }


def merge(old: Sequence[Curve], new: Sequence[Curve]) -> list[Curve]:
    """Old and new curves in a fixed order; a new one replaces the old one of the same task, variant and seed."""
    by_key = {_key(curve): curve for curve in [*old, *new]}
    return [by_key[key] for key in sorted(by_key)]


def table(curves: Iterable[Curve]) -> str:
    """One line per run and set: first, best and last accuracy, steps, mean and greatest log-prob gap."""
    lines = [
        f"{'task':<20}{'variant':<18}{'seed':>6}  {'set':<10}{'first':>7}{'best':>7}{'last':>7}{'steps':>7}{'gap':>9}"
    ]
    for curve in curves:
        gap = statistics.mean([value for value in curve["logprob_gap"] if value is not None] or [math.nan])
        for name, points in curve["accuracy"].items():
            first, best, last = points[0][1], max(rate for _, rate in points), points[-1][1]
            lines.append(
                f"{curve['task']:<20}{curve['variant']:<18}{curve['seed']:>6}  {name:<10}"
                f"{first:>7.3f}{best:>7.3f}{last:>7.3f}{len(curve['steps']):>7}{gap:>9.4f}"
            )
    return "\n".join(lines)


def page_table(curve: Curve, held_out: str) -> str:
    """A run with tools, as a page shows it: what the samples of each step did, and the evaluations before them."""
    head = ("step", "samples: valid calls", "reward", "turns", "held out before it: valid calls", "accuracy", "turns")
    samples = [dict(zip(curve["steps"], curve[name], strict=True)) for name in ("valid_calls", "reward", "turns")]
    rates = [dict(curve[name][held_out]) for name in ("valid_calls_of", "accuracy", "turns_of")]
    rows = [[_when(curve, step), *(one.get(step) for one in (*samples, *rates))] for step in {**samples[0], **rates[0]}]
    return "\n".join(
        [f"| {' | '.join(head)} |", "|---" * len(head) + "|", *(f"| {' | '.join(map(_cell, row))} |" for row in rows)]
    )


def _when(curve: Curve, step: int) -> str:
    return "end" if curve["complete"] and step > curve["steps"][-1] else str(step)


def _cell(value: str | float | None) -> str:
    return "" if value is None else value if isinstance(value, str) else f"{value:.2f}"


def draw(curves: Sequence[Curve], path: Path) -> None:
    """Accuracy and what `PANELS` names, of one task's runs over steps, a colour per variant, as a small PNG.

    Of evaluation sets those are drawn that all the runs have.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.lines import Line2D

    figure, axes = pyplot.subplots(2, 2, figsize=(10, 6.2), layout="constrained")
    accuracy, *others = axes.flat
    panels = PANELS_OF_DIALOGUES if all("valid_calls" in curve for curve in curves) else PANELS
    accuracy.set(title="accuracy (greedy)", ylim=(0, 1.02))
    seeds = Counter(curve["variant"] for curve in curves)
    colours = dict(zip(sorted(seeds), cycle(COLOURS), strict=False))
    evaluated = [curve["accuracy"] for curve in curves if curve["accuracy"]]
    shared = [name for name in (evaluated or [{}])[0] if all(name in sets for sets in evaluated)]
    lines = dict(zip(shared, cycle(LINES), strict=False))
    for curve in curves:
        style = {"color": colours[curve["variant"]], "linewidth": 1.0}
        for name in shared if curve["accuracy"] else ():
            accuracy.plot(*zip(*curve["accuracy"][name], strict=True), **style, marker=".", linestyle=lines[name])
        for axis, key in zip(others, panels, strict=True):
            axis.plot(curve["steps"], [math.nan if value is None else value for value in curve[key]], **style)
    entries = [Line2D([], [], color=colours[name], label=f"{name} ({seeds[name]} seed(s))") for name in colours]
    entries += [Line2D([], [], color="black", linestyle=line, label=name) for name, line in lines.items()]
    figure.legend(handles=entries, loc="outside lower center", ncols=4, fontsize=7)
    for axis, title in zip(others, panels.values(), strict=True):
        axis.set(title=title, ylim=(0, None))
    for axis in axes.flat:
        axis.grid(alpha=0.3)
        axis.set_xlabel("step")
    figure.suptitle(curves[0]["task"], fontsize=10)
    figure.savefig(path, dpi=72)
    pyplot.close(figure)


def _by_set(evaluations: dict[int, dict[str, dict[str, float]]], rate: str) -> dict[str, list[list[float]]]:
    """Set name: [step, rate] pairs in the order of steps."""
    curves: dict[str, list[list[float]]] = {}
    for step in sorted(evaluations):
        for name, rates in evaluations[step].items():
            if rate in rates:
                curves.setdefault(name, []).append([step, _rounded(rates[rate])])
    return curves


def _rounded(value: float | None) -> Any:
    return None if value is None else round(value, 5)


def _key(curve: Curve) -> tuple[str, str, int]:
    return curve["task"], curve["variant"], curve["seed"]
