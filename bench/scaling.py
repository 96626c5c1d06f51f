"""Weak scaling: the same work per GPU on one, two, four GPUs of a machine, a rank and an engine on each; whole runs.

    python bench/scaling.py [--shape qwen3-4b] [--layouts dp1 dp2]
    python bench/scaling.py --shape qwen3-8b --layouts tp2

A layout is a way to split a replica (dp: not at all, tp: tensors, ep: experts) and a number of GPUs. Engines of tpN
have N GPUs, those of dpN and epN one each. Weights are random, answers have a fixed length, rewards are coins. Shown
are the seconds of each phase and of syncs alone, and the step of `dp1` over that of each other: 1.0 is perfect.
`--apart` also has a run of `dp1` on each GPU of the largest layout, all at the same time: the slowest of them is what
GPUs and host allow without any work in common, and its step over a layout's is the efficiency `apart`.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.record import report
from bench.shape_runs import medians, run, syncs, write_model, write_run

STEPS, GROUP = 3, 8
SPLITS = {"dp": {}, "tp": {"tensor_parallel": 0, "engine_tensor_parallel": 0}, "ep": {"expert_parallel": 0}}


def placement(layout: str) -> dict[str, int]:
    """What a run file says of a layout such as tp2."""
    split, number = layout[:2], int(layout[2:])
    if number == 1:
        return {}
    ways = dict.fromkeys(SPLITS[split], number)
    return {"trainers_per_node": number, **ways, **({} if split == "tp" else {"engines_per_node": number})}


def sections(layout: str, options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Sections of the run file, with work in proportion to the GPUs."""
    number = int(layout[2:])
    samples = options.samples * number
    rollout = {"rollout_batch_size": samples // GROUP, "n_samples_per_prompt": GROUP, "num_rollout": STEPS + 1}
    train = {"global_batch_size": samples, "lr": 1e-6, "max_tokens_per_micro_batch": options.max_tokens}
    return {
        "rollout": {**rollout, "max_response_tokens": options.response},
        "train": {**train, "recompute": "full", "use_distributed_optimizer": number > 1},
        "placement": {"engine_memory_fraction": options.fraction, **placement(layout)},
    }


def run_apart(folder: Path, model: Path, options: argparse.Namespace) -> list[list[dict[str, float]]]:
    """Steps of a run of `dp1` on each GPU, all at the same time."""
    gpus = [str(gpu) for gpu in range(max(int(layout[2:]) for layout in options.layouts))]
    files = [write_run(folder / f"apart-{gpu}", model, options.prompt, sections("dp1", options)) for gpu in gpus]
    with ThreadPoolExecutor(len(gpus)) as threads:
        return list(threads.map(run, files, gpus, repeat(STEPS)))


def main() -> None:
    """Measure, print, write results/scaling.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="qwen3-4b", help="a known shape; NAME:LAYERS has the first layers only")
    parser.add_argument("--layouts", nargs="*", default=["dp1", "dp2"])
    parser.add_argument("--samples", type=int, default=128, help="per GPU")
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--response", type=int, default=1024)
    parser.add_argument("--max-tokens", type=int, default=16384)
    parser.add_argument("--fraction", type=float, default=0.6)
    parser.add_argument("--apart", action="store_true", help="runs of dp1 on all GPUs at a time, too")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="ebbtide-scaling-"))
    model = write_model(options.shape, folder / "model")
    steps, sync_s = {}, {}
    for layout in options.layouts:
        file = write_run(folder / layout, model, options.prompt, sections(layout, options))
        steps[layout] = run(file, ",".join(map(str, range(int(layout[2:])))), STEPS)
        sync_s[layout] = syncs(file.parent)
        print(layout, {name: round(value, 3) for name, value in medians(steps[layout]).items()}, flush=True)
    apart = run_apart(folder, model, options) if options.apart else []
    shutil.rmtree(folder)
    phases = {layout: medians(found) for layout, found in steps.items()}
    of_one = phases.get("dp1", {}).get("step_time")
    efficiency = {name: of_one / found["step_time"] for name, found in phases.items() if of_one and name != "dp1"}
    if apart:
        limit = max(medians(found)["step_time"] for found in apart)
        efficiency |= {f"{name} apart": limit / found["step_time"] for name, found in phases.items() if name != "dp1"}
    seconds = {f"{name} step": [step["perf/step_time"] for step in found] for name, found in steps.items()}
    seconds |= {f"{name} sync": found for name, found in sync_s.items()}
    seconds |= {f"GPU {gpu} apart step": [step["perf/step_time"] for step in found] for gpu, found in enumerate(apart)}
    facts = {key: value for key, value in vars(options).items() if key not in ("layouts", "apart")}
    report("scaling", seconds, efficiency=efficiency, phases=phases, apart=[*map(medians, apart)], **facts)


if __name__ == "__main__":
    main()
