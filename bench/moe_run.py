"""Qwen3-30B-A3B, all 48 layers with random weights, trained on eight GPUs of one host with its engines on them.

    python bench/moe_run.py                          # 8 GPUs; 66 GB of disk in --folder, half an hour
    python bench/moe_run.py --layers 6 --gpus 1      # a trial on one GPU; --layers 12 --gpus 2 on two
    python bench/moe_run.py --plan h200              # run file and plan alone; no GPU, nothing is written

`ebbtide run` with 64 prompts x 8 samples a step (8 prompts per GPU where there are fewer), prompts of 512 tokens,
answers of 1,024 to 4,096. Before anything is written it is checked that GPUs, memory, disk and the plan will do. The
first step is not counted. Memory is what the driver says, four times a second, beside the plan. Writes
results/moe_run.json, or moe_run_N_layers_M_gpus.json. Ends with 1 if the run fails or something is not as wanted,
with 2 if it could not begin.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from bench.gpu_watch import Watch, ask, peaks  # noqa: E402
from bench.layout_runs import LayoutOfTwo, ends_of, environment  # noqa: E402
from bench.model_dir import BF16_BYTES  # noqa: E402
from bench.moe_task import Task, run_values, write_inputs  # noqa: E402
from bench.record import report  # noqa: E402
from bench.shape_runs import syncs  # noqa: E402
from common.units import GIB  # noqa: E402
from core.config.schema import RunConfig  # noqa: E402
from core.planner import Device, MemoryPlan, plan_memory, problems  # noqa: E402
from core.planner.memory import TIGHT  # noqa: E402
from core.run_dir.progress import ProgressReader  # noqa: E402
from hpc.node.gpu_cards import DRIVER_BYTES  # noqa: E402
from hpc.node.host_memory import host_memory  # noqa: E402
from launchers.show.memory_table import render_memory  # noqa: E402
from launchers.submit.which_gpus import named_gpu  # noqa: E402
from modelcfg import num_parameters  # noqa: E402

GROUPS_PER_GPU = 8
IDLE_BYTES = 2 * GIB  # of a GPU that nobody uses
RUN_DISK_BYTES = 4 * GIB  # samples and logs
# wanted of the whole model on eight GPUs: answer tokens per second and GPU of 8 H800 (Relax, pull request 193)
WANTED_TOKENS, WANTED_SYNC_S, WANTED_PLAN = 638.0, 0.5, 0.05
RUN_DIR = "out"
PHASES = {"sync and switch": "perf/update_weights_time", "rollout": "perf/rollout_time", "score": "perf/score_time"} | {
    "update": "perf/train_time",
    "switch": "perf/switch_time",
    "step": "perf/step_time",
}


def main() -> int:
    """Check, write, run, report."""
    options = _options()
    task = _task(options)
    gpus = ask()
    device = named_gpu(options.plan) if options.plan else _device(gpus)
    config, values = planned(task, device) if device else (None, {})
    if options.plan:
        assert config is not None
        print(_told(config, task, device))
        return 0
    folder = options.folder or Path(tempfile.gettempdir()) / f"ebbtide-moe-run-{os.getpid()}"
    wrong = [*gpus_wrong(gpus, task), *(plan_wrong(config, task, device) if config else []), *room_wrong(task, folder)]
    if config and not wrong:
        wrong = host_wrong(plan_memory(config, task.shape, device))
    if wrong:
        print("\n".join(wrong), file=sys.stderr)
        return 2
    assert config is not None
    print(_told(config, task, device))
    began = time.time()
    file = write_inputs(task, folder, values)
    print(f"model, prompts and run file in {folder}: {time.time() - began:.0f} s", flush=True)
    found = measure(file, folder / RUN_DIR, task, options.deadline, [used for used, _ in gpus])
    if not options.keep:
        shutil.rmtree(folder / "model", ignore_errors=True)
    facts = summary(found, task, plan_memory(config, task.shape, device))
    missed = faults(facts, found["rc"], whole=task == Task())
    if facts:
        report(_name(task), facts.pop("seconds"), **facts, missed=missed)
    print("\n".join(missed))
    return 1 if missed else 0


def planned(task: Task, device: Device) -> tuple[RunConfig, dict[str, Any]]:
    """The run file: layers are recomputed, or else the optimizer's state streams, where there is no room otherwise."""
    for may_stream in (False, True):
        for recompute in (False, True):
            values = run_values(task, recompute)
            config = RunConfig.model_validate(values)
            plan = plan_memory(config, task.shape, device)
            if plan.fits(share=TIGHT) and plan.streamed <= may_stream:
                return config, values
    return config, values


def gpus_wrong(gpus: Sequence[tuple[int, int]], task: Task) -> Iterator[str]:
    """GPUs that are not there, and those that somebody uses."""
    if len(gpus) < task.gpus:
        yield (
            f"found {len(gpus)} GPUs (nvidia-smi); wanted {task.gpus}: run it on such a machine, or a trial with "
            "--layers 6 --gpus 1"
        )
    for number, (used, _) in enumerate(gpus[: task.gpus]):
        if used > IDLE_BYTES:
            yield f"found {used / GIB:.1f} GiB in use on GPU {number}; wanted it idle: end what runs there"


def plan_wrong(config: RunConfig, task: Task, device: Device) -> Iterator[str]:
    """What the planner would refuse."""
    yield from map(str, problems(config, task.shape, plan_memory(config, task.shape, device)))


def room_wrong(task: Task, folder: Path) -> Iterator[str]:
    """Disk for the model and for what the run leaves."""
    wanted = num_parameters(task.shape) * BF16_BYTES + RUN_DISK_BYTES
    there = next(path for path in [folder, *folder.absolute().parents] if path.exists())
    if (free := shutil.disk_usage(there).free) < wanted:
        found = f"found {free / GIB:.0f} GiB of room in {folder}"
        yield f"{found}; wanted {wanted / GIB:.0f}: set --folder to a larger disk"


def host_wrong(plan: MemoryPlan) -> list[str]:
    """Host memory for what leaves the GPUs."""
    import psutil

    free = min(psutil.virtual_memory().available, host_memory().total_bytes)
    if free >= plan.host_bytes:
        return []
    wanted = f"wanted {plan.host_bytes / GIB:.0f} for what trainers park there"
    return [f"found {free / GIB:.0f} GiB of host memory; {wanted}: end other programs, or use fewer --layers"]


def measure(file: Path, run_dir: Path, task: Task, deadline_s: float, beside: Sequence[int]) -> dict[str, Any]:
    """The run, until it has made its steps or failed; then it is stopped twice, so that it leaves at once."""
    command = [sys.executable, "-m", "launchers", "run", str(file), "--run-dir", str(run_dir)]
    env = environment(LayoutOfTwo(gpus=",".join(map(str, range(task.gpus)))), "cuda")
    log = run_dir.with_suffix(".log")
    events: list[dict[str, Any]] = []
    with log.open("wb") as output, Watch() as watch:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=env, start_new_session=True, cwd=ROOT)
        reader, began = ProgressReader(run_dir / "progress.jsonl"), time.time()
        while process.poll() is None and time.time() - began < deadline_s:
            for event in reader.new_events():
                events.append(event)
                if event["event"] == "step":
                    print(f"step {event['step']}: {event['metrics']['perf/step_time']:.1f} s", flush=True)
            if len(_steps(events)) >= task.steps:
                break
            time.sleep(0.5)
        done = len(_steps(events)) >= task.steps
        _leave(process)
    if not done:
        print(ends_of(_logs(log, run_dir)), file=sys.stderr)
    entered = [event for event in events if event["event"] == "phase"]
    return {
        "rc": 0 if done else process.returncode or 1,
        "events": events,
        "peaks": peaks(watch.readings, entered, beside),
        "syncs": syncs(run_dir.parent) if done else [],
    }


def summary(found: Mapping[str, Any], task: Task, plan: MemoryPlan) -> dict[str, Any]:
    """Seconds of each phase, tokens per second and GPU, memory beside the plan; nothing of a run without steps."""
    steps = _steps(found["events"])[1 : task.steps]  # the first builds what the others find
    if not steps:
        return {}
    seconds = {name: [step[key] for step in steps if key in step] for name, key in PHASES.items()}
    seconds["sync"] = found["syncs"][1 : task.steps]
    answers = [step["rollout/response_tokens"] for step in steps]
    everything = [answer + task.groups * task.prompt for answer in answers]  # a group's prompt is computed once
    rates = {
        f"{what}_tokens_per_s_per_gpu_{phase}": statistics.median(
            count / took / task.gpus for count, took in zip(tokens, seconds[phase], strict=True)
        )
        for what, tokens, phase in (
            ("answer", answers, "rollout"),
            ("all", everything, "update"),
            ("answer", answers, "step"),
            ("all", everything, "step"),
        )
    }
    memory = {
        phase: {"peak_gib": round(peak / GIB, 2), "plan_gib": round(plan.phase_bytes(phase) / GIB, 2)}
        for phase, peak in found["peaks"].items()
        if phase in plan.phases
    }
    fullest = max(memory.values(), key=lambda one: one["peak_gib"], default=None)
    return {
        "seconds": seconds,
        **rates,
        "model": task.shape.name,
        "layers": task.shape.num_layers,
        "num_gpus": task.gpus,
        "weights_gb": num_parameters(task.shape) * BF16_BYTES / 1e9,
        "answer_tokens_per_step": answers,
        "memory": memory,
        "peak_over_plan": fullest["peak_gib"] / (plan.needed_bytes() / GIB) if fullest else None,
        "streamed": plan.streamed,
        "in_turns": plan.in_turns,
        "staying": sorted(plan.staying),
        "logprob_gap": [step.get("train/train_rollout_logprob_abs_diff") for step in steps],
    }


def faults(facts: Mapping[str, Any], rc: int, *, whole: bool) -> list[str]:
    """What is not as wanted; speed is wanted of the whole model on all GPUs alone."""
    if rc or not facts:
        return [f"the run ended with {rc}: see the ends of its logs above"]
    missed = []
    over = facts["peak_over_plan"]
    if over is None or abs(over - 1) > WANTED_PLAN:
        missed.append(f"peak memory is {over} of the plan, wanted within {WANTED_PLAN:.0%}")
    rate, sync_s = facts["answer_tokens_per_s_per_gpu_step"], statistics.median(facts["seconds"]["sync"])
    if whole and rate <= WANTED_TOKENS:
        missed.append(f"{rate:.0f} answer tokens per second and GPU, wanted more than {WANTED_TOKENS:.0f}")
    if whole and sync_s >= WANTED_SYNC_S:
        missed.append(f"a sync takes {sync_s:.2f} s, wanted less than {WANTED_SYNC_S}")
    return missed


def _steps(events: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [event["metrics"] for event in events if event["event"] == "step"]


def _leave(process: subprocess.Popen[bytes]) -> None:
    """Twice interrupted, a run leaves without a checkpoint, which would take 14 bytes per parameter of disk."""
    for _ in range(2):
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.5)
    try:
        process.wait(120)
    except subprocess.TimeoutExpired:
        process.kill()  # the kernel ends its children
        process.wait(60)


def _logs(log: Path, run_dir: Path) -> list[Path]:
    attempt = run_dir / "attempts" / "1"
    return [log, *sorted(attempt.glob("*.log")), *attempt.glob("failure.json")]


def _device(gpus: Sequence[tuple[int, int]]) -> Device | None:
    if not gpus:
        return None
    return Device("cuda", min(total for _, total in gpus) - DRIVER_BYTES, "of this machine", per_node=len(gpus))


def _told(config: RunConfig, task: Task, device: Device) -> str:
    values = yaml.safe_dump(config.model_dump(mode="json", exclude_unset=True), sort_keys=False)
    return values + "\n" + render_memory(config, task.shape, plan_memory(config, task.shape, device))


def _name(task: Task) -> str:
    return "moe_run" if task == Task() else f"moe_run_{task.shape.num_layers}_layers_{task.gpus}_gpus"


def _task(options: argparse.Namespace) -> Task:
    engine_gpus = min(options.engine_gpus, options.gpus)
    groups = options.groups or min(Task.groups, GROUPS_PER_GPU * options.gpus)
    sizes = {"prompt": options.prompt, "answer": tuple(options.answer), "row_tokens": options.row_tokens}
    fraction = {"engine_fraction": options.fraction}
    return Task(
        options.model, options.layers, options.gpus, engine_gpus, groups, steps=options.steps, **sizes, **fraction
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default=Task.model, help="a name of `ebbtide models`")
    parser.add_argument("--layers", type=int, help="the first of its layers alone")
    parser.add_argument(
        "--gpus", type=int, default=Task.gpus, help="trainer ranks, over which the experts are shared out"
    )
    parser.add_argument("--engine-gpus", type=int, default=Task.engine_gpus, help="of each engine, at most --gpus")
    parser.add_argument("--groups", type=int, help=f"prompts of a step; left out: {GROUPS_PER_GPU} per GPU")
    parser.add_argument("--prompt", type=int, default=Task.prompt, help="tokens")
    parser.add_argument("--answer", type=int, nargs=2, default=Task.answer, metavar=("LEAST", "MOST"), help="tokens")
    parser.add_argument("--row-tokens", type=int, default=Task.row_tokens, help="max_tokens_per_micro_batch")
    parser.add_argument("--fraction", type=float, default=Task.engine_fraction, help="engine_memory_fraction")
    parser.add_argument("--steps", type=int, default=Task.steps, help="the first is not counted: 2 or more")
    parser.add_argument("--folder", type=Path, help="for model and run directory; left out: a temporary one")
    parser.add_argument("--keep", action="store_true", help="leave the model there")
    parser.add_argument("--deadline", type=float, default=1800.0, help="seconds for the run")
    parser.add_argument("--plan", metavar="GPU", help="show run file and plan for such GPUs (h200, 80GiB), and end")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
