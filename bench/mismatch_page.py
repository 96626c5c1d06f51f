"""What bench/mismatch.py makes of its runs: figures of each, tables, a picture and the page mismatch.md."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.curves import COLOURS, LINES

HEAD = """# An engine that deliberately disagrees

Made by `python bench/mismatch.py`: {runs} runs, {minutes:.0f} minutes in all on {cores} CPU cores, which others used
too. The task is that of [algorithms on a toy task](algorithms.md): a response is right if it begins with the digit of
the prompt. Each run is a whole one, of {steps} steps of 160 samples with one optimiser step at a learning rate of
{lr:g}, three times that of `bench/algorithms.yaml`, so that an update changes much (smaller ones were not run),
and differs from the others by how engine and trainer are apart, and by which keys of
[`algorithm`](../docs/algorithms.md#where-engine-and-trainer-disagree) answer that (`bench/mismatch.yaml`). Accuracy is
that of 160 sampled responses of the newest weights, before every fifth step and after the last.

{cases}
The schedule (`bench/steps_behind.py`) takes its old samples for on-policy, as one does that has the trainer make
logp_old: the ratio r of the loss is then 1, and only `importance` knows of the gap.

## Foreseen

Written before these runs were made, though not before anything was seen: one of `same` had been started once.

- One step old costs nothing: an update moves log-probs by some hundredths. Four steps old learns later.
- TIS brings back half of that. IcePop, which throws away what TIS bounds, brings back less at first, when most tokens
  are far apart, and is the steadier one later.
- An engine in bf16 is some 0.002 from the trainer, with KL of 1e-5. That costs nothing, so there is nothing to correct.

"""
READ = """
Mean accuracy over the run, differences. What rounding alone makes of a run is seen at `bf16`, whose gap is too small to
matter: it is the least difference to be taken seriously.

- *Weights one step old* cost little with two seeds, hardly more than that, and much with the third. IcePop brings most
  of it back with each, TIS with two of them: with the second, where little was lost, nothing.
- *Four steps old* cost much with each seed. TIS brings back a part of it with each, a third, most, and more than was
  lost, and holds the gap at half. IcePop does not recover: it throws more than a quarter of the tokens away, and learns
  no faster for it.
- *bf16* costs nothing, and the corrections find nothing to do.
{not_run}
Foreseen were the gap of bf16, and that TIS brings back half or more. Not foreseen: how far one update moves the policy,
ten times as far as thought, so that one step old is seen at all; and IcePop, which is not the steadier one later.

"""
TAIL = """
The gap is the mean of |logp_old − logp_engine| over the tokens that a step learns from, KL and the effective share of
samples are of the same tokens, before anything is bounded. Clipped is what the run itself has logged
(`train/tis_clipfrac`). All three fall where a correction keeps the policy from running away, so that they are causes
and effects at once. Seeds are those of the weights, of the samples and of the order of the rows.

![Accuracy by step](results/mismatch.png)
"""
UNCORRECTED = "none"
PANELS = 2  # of the picture, side by side
CLIPPED = "train/tis_clipfrac"


def read(run_dir: Path) -> dict[str, Any]:
    """Figures of a finished run: accuracy by evaluation, and the gap of engine and trainer by step."""
    from core.trajectory import read_step, step_path

    events = [json.loads(line) for line in (run_dir / "progress.jsonl").read_text(encoding="utf-8").splitlines()]
    steps = [event for event in events if event["event"] == "step"]
    records = [read_step(step_path(run_dir, event["step"])) for event in steps]
    gaps = [gap(one.logprobs_old.values, one.logprobs_engine.values, one.loss_mask.values) for one in records]
    return {
        "accuracy": [round(event["results"]["digits"]["accuracy"], 4) for event in events if event["event"] == "eval"],
        **{key: [round(one[key], 5) for one in gaps] for key in gaps[0]},
        "clipped": [round(event["metrics"].get(CLIPPED, 0.0), 5) for event in steps],
    }


def gap(old: NDArray[np.float32], engine: NDArray[np.float32], counts: NDArray[np.uint8]) -> dict[str, float]:
    """What engine and trainer say of the same tokens: mean |g|, KL by exp(g) - 1 - g, effective share of exp(g).

    Args:
        old, engine: [N] log-probs.
        counts: [N] 0 for a token that takes no part.
            So do those of samples that teach nothing, as of a prompt whose samples are all right: old is NaN there.
    """
    g = (old.astype(np.float64) - engine)[(counts > 0) & ~np.isnan(old)]
    ratio = np.exp(g)
    return {
        "gap": float(np.abs(g).mean()),
        "engine_kl": float((ratio - 1 - g).mean()),
        "ess": float(ratio.mean() ** 2 / (ratio**2).mean()),
    }


def learnt(run: Mapping[str, Any]) -> float:
    """Mean accuracy over the evaluations behind the first: how soon and how surely a run has learnt, in one number."""
    return mean(run["accuracy"][1:])


def last(run: Mapping[str, Any]) -> float:
    """Accuracy after the last step."""
    return float(run["accuracy"][-1])


def chosen(record: Mapping[str, Any], case: str, correction: str) -> list[Mapping[str, Any]]:
    """The runs of a case with a correction, one per seed."""
    return [run for run in record["runs"] if (run["case"], run["correction"]) == (case, correction)]


def spread(values: Sequence[float]) -> str:
    """Mean and ends; a dash where there is nothing."""
    if not values:
        return "–"
    ends = f" ({min(values):.2f} to {max(values):.2f})" if len(values) > 1 else ""
    return f"{mean(values):.2f}{ends}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Rows under a head, in Markdown."""
    lines = [f"| {' | '.join(cells)} |" for cells in (head, *rows)]
    return "\n".join([lines[0], "|---" * len(head) + "|", *lines[1:]]) + "\n"


def accuracies(record: Mapping[str, Any]) -> str:
    """Mean accuracy over a run, and in its end, by case and correction, in Markdown."""
    corrections = record["settings"]["corrections"]
    rows = [
        [f"`{case}`, {when}", *(spread(list(map(measure, chosen(record, case, one)))) for one in corrections)]
        for case in ran(record)
        for when, measure in (("over the run", learnt), ("at the end", last))
    ]
    return table(["accuracy", *(f"`{one}`" for one in corrections)], rows)


def ran(record: Mapping[str, Any]) -> list[str]:
    """The cases that need nothing but a CPU."""
    return [name for name, case in record["settings"]["cases"].items() if "needs" not in case]


def gaps(record: Mapping[str, Any]) -> str:
    """How far engine and trainer are apart, means over steps and seeds, in Markdown."""
    rows = [
        [f"`{case}`", f"`{one}`", *_apart(runs, one)]
        for case in ran(record)
        for one in record["settings"]["corrections"]
        if (runs := chosen(record, case, one))
    ]
    return table(["case", "correction", "mean gap", "KL", "effective samples", "clipped"], rows)


def _apart(runs: Sequence[Mapping[str, Any]], correction: str) -> Iterator[str]:
    """Cells of a row; `none` bounds nothing."""
    for key, form in (("gap", ".4f"), ("engine_kl", ".5f"), ("ess", ".2f"), ("clipped", ".3f")):
        hidden = key == "clipped" and correction == UNCORRECTED
        yield "–" if hidden else format(mean(value for run in runs for value in run[key]), form)


def essence(record: Mapping[str, Any]) -> str:
    """One row per case for docs/algorithms.md: the uncorrected gap, mean accuracy over the run, in Markdown."""
    settings = record["settings"]
    rows = []
    for case in ran(record):
        apart, *_ = _apart(chosen(record, case, UNCORRECTED), UNCORRECTED)
        cells = [spread(list(map(learnt, chosen(record, case, one)))) for one in settings["corrections"]]
        rows.append([settings["cases"][case]["what"], apart, *cells])
    return table(["engine", "gap", *(f"`{one}`" for one in settings["corrections"])], rows)


def differences(record: Mapping[str, Any]) -> str:
    """What each case costs uncorrected and what each correction brings back, seed by seed, in Markdown."""
    corrections = [one for one in record["settings"]["corrections"] if one != UNCORRECTED]
    rows = []
    for case in ran(record):
        if beside := record["settings"]["cases"][case].get("beside"):
            plain = chosen(record, case, UNCORRECTED)
            lost = above(plain, chosen(record, beside, UNCORRECTED))
            back = [above(plain, chosen(record, case, one)) for one in corrections]
            rows.append([f"`{case}`", f"{lost} below `{beside}`", *back])
    return table(["case", "uncorrected, by seed", *(f"`{one}` brings back" for one in corrections)], rows)


def above(runs: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]]) -> str:
    """How far the others are above the runs of the same seeds; a dash for a seed that they do not have."""
    found = {run["seed"]: learnt(run) for run in others}
    return ", ".join(f"{found[run['seed']] - learnt(run):+.2f}" if run["seed"] in found else "–" for run in runs)


def told_cases(settings: Mapping[str, Any]) -> str:
    """What the cases are, in Markdown."""
    return "".join(f"- `{name}`: {case['what']}\n" for name, case in settings["cases"].items())


def not_yet(record: Mapping[str, Any]) -> str:
    """The runs that the result does not have, in Markdown."""
    missing = ", ".join(f"`{name}`" for name in record["missing"])
    return f"Not measured so far: {missing}.\n\n" if missing else ""


def not_run(record: Mapping[str, Any]) -> str:
    """The cases that could not be run, and what they need, in Markdown."""
    cases = record["settings"]["cases"].items()
    return "".join(f"- `{name}`: not run: it needs {case['needs']}.\n" for name, case in cases if "needs" in case)


def draw(record: Mapping[str, Any], path: Path) -> None:
    """Accuracy by step, a panel per case, a colour per correction, a line per seed, as a small PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    cases, interval = ran(record), record["settings"]["run"]["eval"]["interval"]
    rows = -(-len(cases) // PANELS)
    figure, axes = pyplot.subplots(rows, PANELS, figsize=(9, 3 * rows), layout="constrained", sharey=True)
    for axis, case in zip(axes.flat, cases, strict=False):
        for one, colour in zip(record["settings"]["corrections"], COLOURS, strict=False):
            runs = chosen(record, case, one)
            for run in runs:
                style = {"color": colour, "linestyle": LINES[run["seed"] % len(LINES) - 1], "linewidth": 1.2}
                steps = [interval * number for number in range(len(run["accuracy"]))]
                axis.plot(steps, run["accuracy"], **style, label=one if run is runs[0] else None)
        axis.set(title=case, xlabel="step", ylim=(0, 1.02))
        axis.grid(alpha=0.3)
        if chosen(record, case, UNCORRECTED):
            axis.legend(fontsize=7)
    figure.supylabel("accuracy of sampled responses", fontsize=10)
    figure.savefig(path, dpi=72)
    pyplot.close(figure)


def page(record: Mapping[str, Any]) -> str:
    """The page mismatch.md."""
    run = record["settings"]["run"]
    head = HEAD.format(
        runs=len(record["runs"]),
        minutes=sum(one["seconds"] for one in record["runs"]) / 60,
        cores=record["machine"]["cores"],
        steps=run["rollout"]["num_rollout"],
        lr=run["train"]["lr"],
        cases=told_cases(record["settings"]),
    )
    told = READ.format(not_run=not_run(record))
    measured = f"## Accuracy\n\n{accuracies(record)}\n{differences(record)}{told}{not_yet(record)}"
    return f"{head}{measured}## How far they are apart\n\n{gaps(record)}{TAIL}"
