"""Layouts of two GPUs, as whole runs at the same time: what each costs, and that all learn the same.

    python bench/two_gpus.py [--at-once 9] [--only own_gpus tp2]

A tiny random model; every run is `ebbtide run` with real engines. Of each run is shown how long it took to start, its
syncs, and how far engine and trainer are apart in log-probs. Each sync is proven (`placement.check_sync: 1`), so a run
that ends well has had the trainer's weights, bit by bit, in each of its engines.
`own_gpus-killed` loses its engine after the first step. Then every layout of trainer ranks learns from the samples of
`alone` again (`replay.py`), for engines do not sample alike under different layouts; layouts of a model with experts
from those of `experts`. In float32 all must give the same. How far bfloat16 may take them apart is measured beside it:
the ranks of `alone` and `experts` with micro-batches of half the size. Ends with 1 if anything is not as wanted.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.layout_runs import (
    AS_RUN,
    LAYOUTS,
    NUM_STEPS,
    Run,
    Steps,
    TrainerLayout,
    options_parser,
    replay,
    run_all,
)

MAX_GAP = {"cuda": 0.05, "cpu": 1e-4}  # mean |log-prob|: bfloat16 rounds at 2**-9, over a few layers; CPUs: float32
MAX_LOSS_GAP = {"cuda": 0.02, "cpu": 1e-4}
# of layouts, where rounding makes more than MAX_GAP of the updates: a router near a tie sends a token elsewhere
MAX_TIMES_ROUNDING = 2.0


class Job(NamedTuple):
    """A replay: whose samples, by which layout of trainer ranks, under which changes."""

    reference: str
    layout: TrainerLayout
    variant: str


def compare(found: Steps, wanted: Steps) -> dict[str, float]:
    """Largest differences over the steps."""
    pairs = list(zip(found, wanted, strict=True))
    norms = [(a["metrics"]["train/grad_norm"], b["metrics"]["train/grad_norm"]) for a, b in pairs]
    return {
        "replay_loss_gap": max(abs(a["metrics"]["train/loss"] - b["metrics"]["train/loss"]) for a, b in pairs),
        "replay_logprob_gap": max(
            statistics.fmean(abs(x - y) for x, y in zip(a["logprobs"], b["logprobs"], strict=True)) for a, b in pairs
        ),
        "replay_grad_norm_ratio": max(max(a, b) / min(a, b) for a, b in norms),
    }


def faults(result: Mapping[str, Any], device: str) -> list[str]:
    """What is not as wanted about one layout."""
    layout, gap, wrong = LAYOUTS[result["layout"]], MAX_GAP[device], []
    reference, of_engine = layout.reference, layout.gap or gap
    if result["rc"] != 0 or len(result["losses"]) != NUM_STEPS:
        wrong.append(f"ended with {result['rc']} after {len(result['losses'])} of {NUM_STEPS} steps")
    if max(result["logprob_gap"], default=0.0) > of_engine:
        wrong.append(f"engine and trainer {max(result['logprob_gap']):.4f} apart, wanted {of_engine}")
    allowed = max(gap, MAX_TIMES_ROUNDING * result.get("rounding_logprob_gap", 0.0))
    if (apart := result.get("replay_logprob_gap")) is None or apart > allowed:
        wrong.append(f"log-probs of the same samples {apart} apart from {reference}'s, wanted {allowed}")
    if device == "cuda" and ((apart := result.get("float32_logprob_gap")) is None or apart > MAX_GAP["cpu"]):
        wrong.append(f"in float32 log-probs {apart} apart from {reference}'s, wanted {MAX_GAP['cpu']}")
    if (apart := result.get("replay_loss_gap")) is not None and apart > MAX_LOSS_GAP[device]:
        wrong.append(f"losses of the same samples {apart} apart from {reference}'s, wanted {MAX_LOSS_GAP[device]}")
    return wrong + result["warnings"][:1]


def jobs_of(runs: Mapping[str, Run], device: str) -> dict[Job, Run]:
    """Layouts of trainer ranks as they ran and, on GPUs, in float32; rounding of every model."""
    references = {run.layout.reference for run in runs.values()}
    variants = [AS_RUN, "float32"] if device == "cuda" else [AS_RUN]
    jobs = {
        Job(run.layout.reference, run.layout.of_trainers, variant): run
        for run in reversed(runs.values())
        for variant in variants
    }
    return jobs | {Job(name, runs[name].layout.of_trainers, "rounded"): runs[name] for name in references}


def replay_all(runs: Mapping[str, Run], device: str) -> dict[Job, Steps | None]:
    """What becomes of each job, all at the same time."""
    jobs = jobs_of(runs, device)
    with ThreadPoolExecutor(len(jobs)) as threads:
        waiting = {
            job: threads.submit(replay, run, runs[job.reference].run_dir, job.variant) for job, run in jobs.items()
        }
    return {job: future.result() for job, future in waiting.items()}


def measure(names: list[str], folder: Path, device: str, at_once: int) -> list[dict[str, Any]]:
    """Run, replay, compare; says on the way what went wrong."""
    runs = run_all(names, folder, device, at_once)
    results = {name: run.result() for name, run in runs.items()}
    replays = replay_all(runs, device)
    for name, run in runs.items():
        whose = run.layout.reference
        mine, base = run.layout.of_trainers, runs[whose].layout.of_trainers
        reference = replays[Job(whose, base, AS_RUN)]
        if reference and (again := replays[Job(whose, mine, AS_RUN)]):
            results[name] |= compare(again, reference)
        if reference and (other := replays[Job(whose, base, "rounded")]):
            results[name]["rounding_logprob_gap"] = compare(other, reference)["replay_logprob_gap"]
        if (exact := replays.get(Job(whose, mine, "float32"))) and (wanted := replays[Job(whose, base, "float32")]):
            results[name]["float32_logprob_gap"] = compare(exact, wanted)["replay_logprob_gap"]
        results[name]["faults"] = faults(results[name], device)
        if results[name]["faults"]:
            print(f"=== {name}: {results[name]['faults']}\n{run.told()}", flush=True)
    return list(results.values())


def table(results: list[dict[str, Any]]) -> str:
    """The results as a table for a person."""

    def numbers(values: list[float], digits: int) -> str:
        return " ".join(f"{value:.{digits}f}" for value in values)

    named = f"{'layout':<17}{'rc':>3}{'start s':>9}  {'sync s':<19}{'engine-trainer':<23}"
    rows = [f"{named}{'same samples: loss':>19}{'log-prob':>10}{'rounding':>10}{'float32':>10}  graphs"]
    for r in results:
        gaps = [
            f"{r[key]:.1e}" if key in r else "-"
            for key in ("replay_loss_gap", "replay_logprob_gap", "rounding_logprob_gap", "float32_logprob_gap")
        ]
        rows.append(
            f"{r['layout']:<17}{r['rc']!s:>3}{r['start_s']!s:>9}  {numbers(r['sync_s'], 2):<19}"
            f"{numbers(r['logprob_gap'], 4):<23}{gaps[0]:>19}{gaps[1]:>10}{gaps[2]:>10}{gaps[3]:>10}  "
            f"{'yes' if r['row_graphs'] else 'no':<8}{'ok' if not r['faults'] else '; '.join(r['faults'])}"
        )
    return "\n".join(rows)


def main() -> None:
    """Measure, print, write results/two_gpus.json."""
    options = options_parser(__doc__ or "", list(LAYOUTS), "runs").parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="two-gpus-"))
    references = dict.fromkeys(LAYOUTS[name].reference for name in options.only)
    names = list(references | dict.fromkeys(options.only))
    results = measure(names, folder, options.device, options.at_once)
    print(table(results), flush=True)
    if options.device == "cuda":
        from bench.record import report

        report("two_gpus", {r["layout"]: r["sync_s"] or [0.0] for r in results}, layouts=results)
    sys.exit(any(result["faults"] for result in results))


if __name__ == "__main__":
    main()
