"""The demo by TRL's GRPOTrainer and then by `ebbtide run`, one after the other: seconds per step, tokens/s, reward.

Same machine, model, prompts in the same order, samples, lengths, optimiser and loss; other random numbers. TRL
generates with transformers, or with vLLM where its Python has it (--variants vllm); the fastest variant of
bench/trl_steps.py is compared.
Start-up and each program's first step are told apart and left out of the medians; evaluations are not made.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from bench import peer_task, trl_venv  # noqa: E402
from bench.record import report  # noqa: E402
from core.config import dump_run_file, load_run_file  # noqa: E402
from core.config.schema import RunConfig  # noqa: E402
from core.pretrained.locate import locate  # noqa: E402

DEMO = ROOT / "examples" / "smollm2-arithmetic.yaml"
VARIANTS = {"cpu": ["generate"], "cuda": ["generate-bf16", "continuous", "generate"]}
Run = dict[str, Any]  # name, startup_s, steps: one {seconds, rollout, update, tokens, reward} each; or name, failed


def by_trl(config: RunConfig, folder: Path, options: argparse.Namespace) -> tuple[list[Run], dict[str, str]]:
    """TRL's runs, one per variant, and its versions."""
    if options.trl_result:
        return _trl_result(*options.trl_result)
    python = options.trl_python or trl_venv.make(ROOT / ".cache" / "trl-venv")
    task = peer_task.task(config, locate(config.model.path))
    task |= {"limit_s": options.limit_s, "micro_batch_size": options.trl_micro_batch or task["batch_size"]}
    (folder / "task.json").write_text(json.dumps(task))
    path = [options.trl_path] if options.trl_path else []
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([*path, str(ROOT), os.environ.get("PYTHONPATH", "")])}
    variants = options.variants or VARIANTS[config.placement.device]
    command = [str(python), "-W", "ignore", str(ROOT / "bench" / "trl_steps.py"), "task.json", "trl.json", *variants]
    try:
        _run(command, folder / "trl-output.txt", env, options.timeout_s)
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        if not (folder / "trl.json").exists():
            raise
        print(f"TRL ended before its last variant: {error}")
    return _trl_result(folder / "trl.json")


def _trl_result(*files: Path) -> tuple[list[Run], dict[str, str]]:
    runs: list[Run] = []
    versions: dict[str, str] = {}
    for result in (json.loads(file.read_text()) for file in files):
        runs += result["runs"]
        versions |= result["versions"]
    return runs, versions


def by_ebbtide(config: RunConfig, folder: Path, timeout_s: float) -> Run:
    """Our run, from the command to its end."""
    dump_run_file(config, folder / "run.yaml")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    began = time.time()
    command = [sys.executable, "-m", "launchers", "run", "run.yaml", "--run-dir", "run"]
    _run(command, folder / "output.txt", env, timeout_s)
    events = [json.loads(line) for line in (folder / "run" / "progress.jsonl").read_text().splitlines()]
    return {"name": "ebbtide", **steps_of(events, began)}


def steps_of(events: list[dict[str, Any]], began: float) -> Run:
    """Start-up and steps from our progress file. A step lasts from the end of the one before to its own end."""
    first = next(event["time"] for event in events if event["event"] == "phase")
    done = [event for event in events if event["event"] == "step"]
    ends = [first, *(event["time"] for event in done)]
    steps = [
        {
            "seconds": end - begin,
            "rollout": event["metrics"]["perf/rollout_time"],
            "update": event["metrics"]["perf/train_time"],
            "sync": event["metrics"]["perf/update_weights_time"],
            "tokens": event["metrics"]["rollout/response_tokens"],
            "reward": event["metrics"]["rollout/raw_reward"],
        }
        for begin, end, event in zip(ends, ends[1:], done, strict=False)
    ]
    return {"startup_s": first - began, "steps": steps}


def counted(run: Run) -> list[dict[str, float]]:
    """The steps that count: all but the first, if there are more."""
    steps: list[dict[str, float]] = run["steps"]
    return steps[1:] or steps


def median(run: Run, key: str) -> float:
    """Median over the steps that count; NaN where a program does not have the value."""
    return statistics.median(step.get(key, float("nan")) for step in counted(run))


def tokens_per_s(run: Run) -> float:
    """Response tokens over all seconds of the steps that count."""
    steps = counted(run)
    return sum(step["tokens"] for step in steps) / sum(step["seconds"] for step in steps)


def comparison(runs: list[Run]) -> dict[str, Any]:
    """Ours against TRL's fastest run: `step_ratio` above 1 means that ours is faster."""
    ours = [run for run in runs if run["name"] == "ebbtide" and "steps" in run]
    theirs = [run for run in runs if run["name"] != "ebbtide" and "steps" in run]
    if not ours or not theirs:
        return {}
    fastest = min(theirs, key=lambda run: median(run, "seconds"))
    return {
        "step_ratio": median(fastest, "seconds") / median(ours[0], "seconds"),
        "tokens_per_s_ratio": tokens_per_s(ours[0]) / tokens_per_s(fastest),
        "compared_with": fastest["name"],
    }


def show(runs: list[Run]) -> None:
    """What each run did, with its rewards by step."""
    print(
        f"{'run':<24}{'start s':>9}{'1st s':>8}{'rollout':>9}{'update':>8}{'tokens':>8}{'tokens/s':>10}  reward by step"
    )
    for run in runs:
        if "failed" in run:
            print(f"{run['name']:<24} failed: {run['failed']}")
            continue
        rewards = " ".join(f"{step['reward']:.2f}" for step in run["steps"])
        print(
            f"{run['name']:<24}{run['startup_s']:>9.1f}{run['steps'][0]['seconds']:>8.2f}{median(run, 'rollout'):>9.2f}"
            f"{median(run, 'update'):>8.2f}{median(run, 'tokens'):>8.0f}{tokens_per_s(run):>10.0f}  {rewards}"
        )


def main() -> None:
    """Run both, print, write results/peer_trl_{cpu,gpu}.json (with the run's name if it is not the demo)."""
    options = _arguments()
    config = load_run_file(options.run_file, options.set)
    config = peer_task.measured(config, 2 if options.quick else options.steps, options.device)
    peer_task.check(config)
    locate(config.model.path)  # a conversion belongs to neither
    runs: list[Run] = []
    versions: dict[str, str] = {}
    with nullcontext(options.keep) if options.keep else tempfile.TemporaryDirectory(prefix="ebbtide-peer-") as name:
        if options.only != "ebbtide":
            runs, versions = by_trl(config, Path(name), options)
            if not options.only:
                show(runs)  # minutes of measuring, should the other program fail
        if options.only != "trl":
            runs = [by_ebbtide(config, Path(name), options.timeout_s), *runs]
    show(runs)
    compared = comparison(runs)
    if compared:
        seconds = {run["name"]: [step["seconds"] for step in counted(run)] for run in runs if "steps" in run}
        settings = config.model_dump(mode="json", include={"rollout", "train", "placement"})
        facts = {**compared, "task": config.name, "threads": len(os.sched_getaffinity(0)), "trl_versions": versions}
        report(_result_name(options.run_file, config), seconds, **facts, runs=runs, settings=[settings])


def _result_name(run_file: Path, config: RunConfig) -> str:
    machine = {"cpu": "cpu", "cuda": "gpu"}[config.placement.device]
    return f"peer_trl_{machine}" + ("" if run_file.resolve() == DEMO else f"_{config.name}")


def _run(command: list[str], log: Path, env: dict[str, str], timeout_s: float) -> None:
    """Run in the log's folder; raise with the end of the output if it fails or takes too long."""
    env = {**env, "EBBTIDE_CACHE": os.environ.get("EBBTIDE_CACHE") or str(Path.cwd() / ".cache" / "ebbtide")}
    with log.open("wb") as output:
        done = subprocess.run(
            command, cwd=log.parent, env=env, stdout=output, stderr=output, timeout=timeout_s, check=False
        )
    if done.returncode:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-30:])
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}; the end of its output:\n{tail}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("run_file", nargs="?", type=Path, default=DEMO, help="the demo, if left out")
    add("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="change the run file, for both")
    add("--steps", type=int, help="as in the run file, if left out")
    add("--quick", action="store_true", help="two steps, to see that it works")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto")
    add("--only", choices=("trl", "ebbtide"), help="one of the two; nothing is written to results/")
    add("--variants", nargs="+", help="of bench/trl_steps.py")
    add("--trl-micro-batch", type=int, metavar="SAMPLES", help="TRL's, where the whole batch is too much for the GPU")
    add("--trl-python", type=Path, help="a Python that imports TRL; else one is made in .cache/trl-venv")
    add("--trl-path", help="put first on its PYTHONPATH")
    add("--trl-result", type=Path, nargs="+", help="trl.json that --keep left on this machine: TRL is not run again")
    add("--keep", type=Path, help="an empty folder for the run directory, TRL's result and the output")
    add("--limit-s", type=float, default=1800.0, help="a variant of TRL takes no further step after this time")
    add("--timeout-s", type=float, default=3600.0, help="deadline of each of the two programs")
    options = parser.parse_args()
    if options.keep:
        options.keep.mkdir(parents=True, exist_ok=True)
    return options


if __name__ == "__main__":
    main()
