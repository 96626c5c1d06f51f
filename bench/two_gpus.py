"""Layouts of two GPUs, as whole runs at the same time: what each costs, and that all learn the same.

    python bench/two_gpus.py [--at-once 9] [--only own_gpus tp2]

A tiny random model; every run is `ebbtide run` with real engines. Of each run is shown how long it took to start, its
syncs, and how far engine and trainer are apart in log-probs. Each sync is proven (`placement.check_sync: 1`), so a run
that ends well has had the trainer's weights, bit by bit, in each of its engines. `own_gpus-killed` loses its engine
after the first step. Then every layout of trainer ranks learns from the samples of `alone` again (`replay.py`), for
engines do not sample alike under different layouts; layouts of a model with experts from those of `experts`. Ends
with 1 if anything is not as wanted.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from tests.tiny_models import EXPERTS, GPU_SIZES, tiny_model  # noqa: E402
from tests.tiny_runs import write_run  # noqa: E402

NUM_STEPS = 3
DEADLINE_S = {"cuda": 300.0, "cpu": 900.0}  # of one run
MAX_GAP = {"cuda": 0.05, "cpu": 1e-4}  # mean |log-prob|: bfloat16 rounds at 2**-9, over a few layers
MAX_LOSS_GAP = {"cuda": 0.02, "cpu": 1e-4}
TWO_TRAINERS = {"trainers_per_node": 2}
DENSE = "qwen3-tied"
SIZES = {DENSE: GPU_SIZES, EXPERTS: {**GPU_SIZES, "moe_intermediate_size": 128}}
TrainerLayout = tuple[str, int, int, int, bool]  # model, ranks, tensor and expert parallel, distributed optimiser


@dataclass(frozen=True)
class LayoutOfTwo:
    """What the run file says, its model, the GPUs it may see, and whether its engine is killed."""

    placement: Mapping[str, Any] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)
    kind: str = DENSE
    gpus: str = "0,1"
    killed: bool = False

    @property
    def trainer_ranks(self) -> int:
        """In all."""
        return int(self.placement.get("trainers_per_node", 1))

    @property
    def of_trainers(self) -> TrainerLayout:
        """What of it concerns the trainer ranks: layouts that agree in this compute the same."""
        sharded = bool(self.train.get("use_distributed_optimizer"))
        tensor, expert = (int(self.placement.get(key, 1)) for key in ("tensor_parallel", "expert_parallel"))
        return self.kind, self.trainer_ranks, tensor, expert, sharded


LAYOUTS = {
    "alone": LayoutOfTwo(gpus="1"),
    "tp2": LayoutOfTwo({**TWO_TRAINERS, "tensor_parallel": 2}),
    "dp2-distopt": LayoutOfTwo(TWO_TRAINERS, {"use_distributed_optimizer": True}),
    "engine-tp2": LayoutOfTwo({**TWO_TRAINERS, "engine_tensor_parallel": 2}),
    "two-engines": LayoutOfTwo({**TWO_TRAINERS, "engines_per_node": 2}),
    "own_gpus": LayoutOfTwo({"engines": "own_gpus"}),
    "own_gpus-killed": LayoutOfTwo({"engines": "own_gpus"}, gpus="1,0", killed=True),
    "experts": LayoutOfTwo(gpus="0", kind=EXPERTS),
    "experts-ep2": LayoutOfTwo({**TWO_TRAINERS, "expert_parallel": 2}, {"use_distributed_optimizer": True}, EXPERTS),
}
REFERENCE = {DENSE: "alone", EXPERTS: "experts"}  # of a model: whose samples all its layouts learn from again


def run_file(folder: Path, layout: LayoutOfTwo, device: str) -> Path:
    """A run of NUM_STEPS steps in a folder of its own, with a model that is the same everywhere."""
    placement = {
        **{"device": device, "check_sync": 1, "start_timeout_s": 350, "engine_max_total_tokens": 16384},
        **({"engine_memory_fraction": 0.25} if device == "cuda" else {}),
        **layout.placement,
    }
    path = write_run(
        folder,
        layout.kind,
        placement=placement,
        train={"lr": 1e-4, **layout.train},
        rollout={"num_rollout": NUM_STEPS, "max_response_tokens": 32},
        logging={"tensorboard": False},
        checkpoint={"interval": 0, "save_hf": False},
    )
    tiny_model(layout.kind, folder / "model", **SIZES[layout.kind])
    return path


class Run:
    """One of them, under way."""

    def __init__(self, name: str, folder: Path, device: str) -> None:
        self.name, self.layout, self.device = name, LAYOUTS[name], device
        self.folder, self.run_dir = folder / name, folder / name / "out"
        self.file = run_file(self.folder, self.layout, device)
        self.log = self.folder / "log"
        command = [sys.executable, "-m", "launchers", "run", str(self.file), "--run-dir", str(self.run_dir)]
        self.began = time.time()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, env=environment(self.layout, device), start_new_session=True, cwd=ROOT
            )
        self._killed = not self.layout.killed

    def running(self) -> bool:
        """Whether it still goes on; kills its engine when it is time."""
        if not self._killed and self.events("step"):
            os.kill(self._engine_pid(), signal.SIGKILL)
            self._killed = True
        if self.process.poll() is None and time.time() - self.began > DEADLINE_S[self.device]:
            os.killpg(self.process.pid, signal.SIGINT)
            self.process.wait(60)
        return self.process.poll() is None

    def events(self, kind: str) -> list[dict[str, Any]]:
        """Progress events of a kind."""
        path = self.run_dir / "progress.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [event for event in map(json.loads, lines) if event["event"] == kind]

    def result(self) -> dict[str, Any]:
        """What came of it."""
        steps = [event["metrics"] for event in self.events("step")]
        begin = next(iter(self.events("begin")), None)
        trainers = [path.read_text() for path in self.run_dir.glob("attempts/1/trainer-*.log")]
        return {
            "layout": self.name,
            "rc": self.process.returncode,
            "start_s": round(begin["time"] - self.began, 1) if begin else None,
            "row_graphs": any("are CUDA graphs" in text for text in trainers),
            "warnings": [line for text in trainers for line in text.splitlines() if "state dict differs" in line],
            "losses": [step["train/loss"] for step in steps],
            "logprob_gap": [step["train/train_rollout_logprob_abs_diff"] for step in steps],
            "sync_s": [step["perf/update_weights_time"] for step in steps],
            "rollout_s": [step["perf/rollout_time"] for step in steps],
            "train_s": [step["perf/train_time"] for step in steps],
        }

    def told(self) -> str:
        """The ends of its logs."""
        paths = [
            self.log,
            *sorted(self.run_dir.glob("attempts/1/*.log")),
            *self.run_dir.glob("attempts/1/failure.json"),
        ]
        return "\n".join(f"--- {p}\n" + "\n".join(p.read_text(errors="replace").splitlines()[-25:]) for p in paths)

    def _engine_pid(self) -> int:
        text = (self.run_dir / "attempts/1/agent-0.log").read_text()
        return int(next(line for line in text.splitlines() if "engine=" in line).partition("pid=")[2].split()[0])


def environment(layout: LayoutOfTwo, device: str) -> dict[str, str]:
    """The caller's, with this layout's GPUs."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path, **({"CUDA_VISIBLE_DEVICES": layout.gpus} if device == "cuda" else {})}


def run_all(names: list[str], folder: Path, device: str, at_once: int) -> dict[str, Run]:
    """Run the layouts, so many at a time."""
    waiting, started = list(names), {}
    running: list[Run] = []
    while waiting or running:
        while waiting and len(running) < at_once:
            name = waiting.pop(0)
            started[name] = Run(name, folder, device)
            running.append(started[name])
        running = [run for run in running if run.running()]
        time.sleep(0.2)
    return started


def replay(run: Run, samples: Path) -> list[dict[str, Any]] | None:
    """What this layout's trainer ranks make of the samples of another run."""
    out = run.folder / "replay.json"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(run.layout.trainer_ranks), str(ROOT / "bench" / "replay.py")]
    env = {**environment(run.layout, run.device), "NCCL_CUMEM_ENABLE": "0", "OMP_NUM_THREADS": "1"}
    with (run.folder / "replay.log").open("wb") as log:
        subprocess.run(
            [*command, str(run.file), str(samples), str(out)], stdout=log, stderr=log, env=env, cwd=ROOT, timeout=200
        )
    return json.loads(out.read_text()) if out.exists() else None


def compare(found: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> dict[str, float]:
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
    gap, wrong = MAX_GAP[device], []
    reference = REFERENCE[LAYOUTS[result["layout"]].kind]
    if result["rc"] != 0 or len(result["losses"]) != NUM_STEPS:
        wrong.append(f"ended with {result['rc']} after {len(result['losses'])} of {NUM_STEPS} steps")
    if max(result["logprob_gap"], default=0.0) > gap:
        wrong.append(f"engine and trainer {max(result['logprob_gap']):.4f} apart, wanted {gap}")
    if (apart := result.get("replay_logprob_gap")) is None or apart > gap:
        wrong.append(f"log-probs of the same samples {apart} apart from {reference}'s, wanted {gap}")
    if (apart := result.get("replay_loss_gap")) is not None and apart > MAX_LOSS_GAP[device]:
        wrong.append(f"losses of the same samples {apart} apart from {reference}'s, wanted {MAX_LOSS_GAP[device]}")
    return wrong + result["warnings"][:1]


def replay_all(runs: Mapping[str, Run]) -> dict[TrainerLayout, list[dict[str, Any]] | None]:
    """One replay for every layout of trainer ranks, all at the same time."""
    distinct = {run.layout.of_trainers: run for run in reversed(runs.values())}
    with ThreadPoolExecutor(len(distinct)) as threads:
        found = threads.map(lambda run: replay(run, runs[REFERENCE[run.layout.kind]].run_dir), distinct.values())
        return dict(zip(distinct, found, strict=True))


def measure(names: list[str], folder: Path, device: str, at_once: int) -> list[dict[str, Any]]:
    """Run, replay, compare; says on the way what went wrong."""
    runs = run_all(names, folder, device, at_once)
    results = {name: run.result() for name, run in runs.items()}
    replays = replay_all(runs)
    for name, run in runs.items():
        reference = replays[runs[REFERENCE[run.layout.kind]].layout.of_trainers]
        again = replays[run.layout.of_trainers]
        if reference and again:
            results[name] |= compare(again, reference)
        results[name]["faults"] = faults(results[name], device)
        if results[name]["faults"]:
            replayed = run.folder / "replay.log"
            tail = replayed.read_text(errors="replace")[-3000:] if replayed.exists() else ""
            print(f"=== {name}: {results[name]['faults']}\n{run.told()}\n--- replay\n{tail}", flush=True)
    return list(results.values())


def table(results: list[dict[str, Any]]) -> str:
    """For a person."""

    def numbers(values: list[float], digits: int) -> str:
        return " ".join(f"{value:.{digits}f}" for value in values)

    named = f"{'layout':<17}{'rc':>3}{'start s':>9}  {'sync s':<19}{'engine-trainer':<23}"
    rows = [f"{named}{'loss on same samples':>21}  graphs"]
    for r in results:
        gap = f"{r['replay_loss_gap']:.1e}" if "replay_loss_gap" in r else "-"
        rows.append(
            f"{r['layout']:<17}{r['rc']!s:>3}{r['start_s']!s:>9}  {numbers(r['sync_s'], 2):<19}"
            f"{numbers(r['logprob_gap'], 4):<23}{gap:>21}  "
            f"{'yes' if r['row_graphs'] else 'no':<8}{'ok' if not r['faults'] else '; '.join(r['faults'])}"
        )
    return "\n".join(rows)


def main() -> None:
    """Measure, print, write results/two_gpus.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--at-once", type=int, default=len(LAYOUTS), help="runs at the same time")
    parser.add_argument("--only", nargs="*", default=list(LAYOUTS), choices=list(LAYOUTS))
    parser.add_argument("--folder", type=Path, help="where the runs go; left out: a temporary folder")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="two-gpus-"))
    references = dict.fromkeys(REFERENCE[LAYOUTS[name].kind] for name in options.only)
    names = list(references | dict.fromkeys(options.only))
    results = measure(names, folder, options.device, options.at_once)
    print(table(results), flush=True)
    if options.device == "cuda":
        from bench.record import report

        report("two_gpus", {r["layout"]: r["sync_s"] or [0.0] for r in results}, layouts=results)
    sys.exit(any(result["faults"] for result in results))


if __name__ == "__main__":
    main()
