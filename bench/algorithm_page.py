"""What bench/algorithms.py makes of its runs: their curves, a table, a picture and the page algorithms.md."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import Any

from bench.curves import COLOURS, LINES

EXPLAINED = "train/explained_variance"
HEAD = """# Algorithms on a toy task

Made by `python bench/algorithms.py`: {minutes:.0f} minutes in all on {cores} CPU cores, which others used too. A prompt
is one digit; a response of two tokens is right if it begins with that digit. The model is a Llama of two layers and 64
channels from random weights, over a vocabulary of 16: one of sixteen responses is right by chance. Every line is a
whole run of 10 prompts x 16 samples a step, with settings of `bench/algorithms.yaml`; accuracy is that of greedy
responses before the first and after the last step, reward the mean over the samples of a step.

"""
TAIL = """
The task tells whether an algorithm learns at all, and says nothing of which is better: learning rate and number of
steps are the same for all. Loss and engine are those of every run; only the start of the engine is shared.
`distillation` has no use for rewards: it learns from the final model of `grpo`. That supervised fine-tuning has the
loss of transformers to 1e-5 is a test (`tests/runs/test_sft.py`).

![Mean reward by step](results/algorithms.png)
"""


def read(run_dir: Path) -> dict[str, Any]:
    """Rewards by step of a finished run, and accuracies of its evaluation set with their steps."""
    events = [json.loads(line) for line in (run_dir / "progress.jsonl").read_text(encoding="utf-8").splitlines()]
    rewards = [event["metrics"]["rollout/raw_reward"] for event in events if event["event"] == "step"]
    evaluations = [event for event in events if event["event"] == "eval"]
    rates = [results["accuracy"] for event in evaluations for results in event["results"].values()]
    values = [event["metrics"].get(EXPLAINED) for event in events if event["event"] == "step"]
    explained = [None if value is None else round(value, 4) for value in values]
    found = {
        "rewards": [round(reward, 4) for reward in rewards],
        "accuracy": rates,
        "evaluated": [event["step"] for event in evaluations],
    }
    return found | ({"explained_variance": explained} if any(value is not None for value in explained) else {})


def table(record: Mapping[str, Any]) -> str:
    """One row per algorithm, in Markdown."""
    target = record["target"]
    lines = [
        f"| algorithm | accuracy before | after | reward at first | at last | above {target} from step | s |",
        "|---|---|---|---|---|---|---|",
    ]
    for run in record["runs"]:
        rewards, (before, *_, after) = run["rewards"], run["accuracy"]
        reached = next((str(step) for step, reward in enumerate(rewards) if reward > target), "never")
        figures = [f"{value:.2f}" for value in (before, after, rewards[0], rewards[-1])]
        cells = [f"`{run['name']}`", *figures, reached, f"{run['seconds']:.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n" + "".join(map(critic, record["runs"]))


def critic(run: Mapping[str, Any]) -> str:
    """A paragraph about the critic of a run; empty: it has none."""
    found = [value for value in run.get("explained_variance", ()) if value is not None]
    if not found:
        return ""
    above, last, middle, most = sum(value > 0 for value in found), found[-1], median(found), max(found)
    return (
        f"\nThe critic of `{run['name']}` explains {last:.2f} of the variance of the returns at the last step, "
        f"{middle:.2f} in the\nmedian of all, {most:.2f} at most; it is above 0 in {above} of {len(found)} steps.\n"
    )


def page(record: Mapping[str, Any]) -> str:
    """The page algorithms.md."""
    head = HEAD.format(minutes=sum(run["seconds"] for run in record["runs"]) / 60, cores=record["machine"]["cores"])
    missing = ", ".join(f"`{name}`" for name, _ in record["missing"])
    return head + table(record) + (f"\nNot measured so far: {missing}.\n" if missing else "") + TAIL


def draw(record: Mapping[str, Any], path: Path) -> None:
    """Mean reward by step, a line per algorithm, as a small PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    for run, colour, line in zip(record["runs"], COLOURS, cycle(LINES), strict=False):
        axis.plot(run["rewards"], label=run["name"], color=colour, linestyle=line, linewidth=1.2)
    axis.axhline(record["target"], color="#999999", linewidth=0.8)
    axis.set(xlabel="step", ylabel="mean reward of the samples", ylim=(0, 1.02))
    axis.grid(alpha=0.3)
    axis.legend(fontsize=7)
    figure.savefig(path, dpi=72)
    pyplot.close(figure)
