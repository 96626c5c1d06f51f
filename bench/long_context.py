"""One long row of one sample, its tokens on one GPU and shared out over two: speed, and memory beside the plan.

    python bench/long_context.py                                     # 65,536 tokens of Qwen3-4B's shape, 1 and 2 GPUs
    python bench/long_context.py --gpus 2 --flash                    # on 2 GPUs, by cuDNN and by FlashAttention
    python bench/long_context.py --gpus 1 --host-inputs              # inputs of layers on the GPU, and on the host
    python bench/long_context.py --device cpu --shape smollm2-135m:2 --tokens 512 --prompt 64     # a trial on CPUs

Weights are random, all layers are recomputed. The optimiser's state is on the GPU if it fits by plan, else it streams.
An update is forward and backward of the row, the sum of gradients over the ranks, and an optimiser step; the first is
not counted. MFU counts what the row needs, not what recomputing repeats (`core/megatron/sizes/flops.py`), over the
peak of all GPUs. The memory is the allocator's, of the rank that needs most. Writes results/long_context.json; ends
with 1 if the layouts do not learn the same, or if a peak is more than a twentieth from its plan.
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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
import torch.distributed as dist  # noqa: E402

from bench.gpu_trainer import RandomTrainer, make_config, make_samples  # noqa: E402
from bench.model_dir import known_shape  # noqa: E402
from bench.record import report  # noqa: E402
from common.units import GIB  # noqa: E402
from core.config.schema import RunConfig  # noqa: E402
from core.megatron.attention import on_gpu  # noqa: E402
from core.megatron.sizes.flops import peak_flops, update_flops  # noqa: E402
from core.planner import Device, plan_memory  # noqa: E402
from core.planner.changes import apply  # noqa: E402
from core.residency.memory import total_memory  # noqa: E402
from core.samples import TrainSample  # noqa: E402

DEADLINE_S = 400.0  # of one layout
MAX_FROM_PLAN = 0.05
MAX_APART = {"cuda": 0.02, "cpu": 1e-4}  # log-probs, and gradient norms by their ratio; bfloat16 rounds


def settings(options: argparse.Namespace, gpus: int) -> RunConfig:
    """A run file's values for an update over one sample that is one row."""
    placement = {"trainers_per_node": gpus, "context_parallel": gpus, "device": options.device}
    recompute = {"recompute": "full", "recompute_inputs": "host" if options.host_inputs else "device"}
    config = make_config(1, placement, **recompute, use_distributed_optimizer=gpus > 1)
    lengths = {"data.max_prompt_tokens": options.prompt, "rollout.max_response_tokens": options.tokens - options.prompt}
    return apply(config, {**lengths, "train.max_tokens_per_micro_batch": options.tokens, "model.dtype": "auto"})


class Clock:
    """Seconds of the parts of an update, when the device has done them."""

    def __init__(self, trainer: RandomTrainer) -> None:
        self._trainer, self._step = trainer, trainer.policy.optimizer.step
        trainer.policy.optimizer.step = self._timed_step  # type: ignore[method-assign]
        self.optimiser_s = 0.0

    def update(self, samples: list[TrainSample]) -> dict[str, float]:
        """Seconds of a whole update, of its optimiser step, and what came of it."""
        began = self._now()
        result = self._trainer.update(samples)
        return {
            "update_s": self._now() - began,
            "optimiser_s": self.optimiser_s,
            "grad_norm": result.metrics["train/grad_norm"],
            "logprob": statistics.fmean(result.logprobs[0]),
            "peak_gib": result.metrics.get("perf/gpu_memory_gib_max", 0.0),
        }

    def _timed_step(self) -> float:
        began = self._now()
        norm = self._step()
        self.optimiser_s = self._now() - began
        return norm

    def _now(self) -> float:
        if self._trainer.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """One layout, in the ranks that torchrun started. Collective: all of them."""
    gpus, device, shape = int(os.environ["WORLD_SIZE"]), options.device, known_shape(options.shape)
    on_gpu.USE_CUDNN = not options.flash
    config = settings(options, gpus)
    plan = plan_memory(config, shape, Device(device, total_memory(device)), in_turns=device == "cuda")
    trainer = RandomTrainer(config, shape, Path(tempfile.gettempdir()), device, streamed=plan.streamed)
    samples = make_samples(1, options.prompt, options.tokens - options.prompt, min(40000, shape.vocab_size))
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    clock = Clock(trainer)
    updates = [clock.update(samples) for _ in range(1 + options.updates)]
    planned = plan.phases["update"]["trainer"]
    return {
        "gpus": gpus,
        "flash": options.flash,
        "host_inputs": options.host_inputs,
        "streamed": plan.streamed,
        **{name: [one[name] for one in updates[1:]] for name in ("update_s", "optimiser_s")},
        **{name: [one[name] for one in updates] for name in ("grad_norm", "logprob")},
        "peak_gib": updates[-1]["peak_gib"],
        "planned_gib": (sum(planned.values()) - planned["process"]) / GIB,
        "planned_parts_gib": {part: size / GIB for part, size in planned.items()},
    }


def rates(line: dict[str, Any], options: argparse.Namespace, device_name: str) -> dict[str, Any]:
    """Tokens per second and MFU of a layout's updates."""
    response = options.tokens - options.prompt
    flops = update_flops(known_shape(options.shape), options.tokens, response, options.tokens**2 / 2)
    peak, seconds = peak_flops(device_name), statistics.median(line["update_s"])
    passes = seconds - statistics.median(line["optimiser_s"])
    assert flops is not None, options.shape
    mfu = {} if peak is None else {"mfu": flops / seconds / line["gpus"] / peak}
    mfu |= {} if peak is None else {"mfu_of_passes": flops / passes / line["gpus"] / peak}
    return {"tokens_per_s": options.tokens / seconds, "tflops_per_gpu": flops / seconds / line["gpus"] / 1e12, **mfu}


def name_of(line: dict[str, Any]) -> str:
    """What a layout is called."""
    others = ", FlashAttention" * line.get("flash", False) + ", inputs on the host" * line.get("host_inputs", False)
    return f"{line['gpus']} GPUs{others}"


def faults(lines: list[dict[str, Any]], device: str) -> list[str]:
    """What is not as wanted: the same learnt by all, log-probs after a step included, and memory as planned."""
    wrong, most = [], MAX_APART[device]
    for line in lines:
        name, first = name_of(line), lines[0]
        norms = [abs(a / b - 1) for a, b in zip(line["grad_norm"], first["grad_norm"], strict=True)]
        values = [abs(a - b) for a, b in zip(line["logprob"], first["logprob"], strict=True)]
        for what, gaps in (("gradient norms", norms), ("mean log-probs", values)):
            if not all(gap <= most for gap in gaps):  # nan is none
                apart = ", ".join(f"{gap:.1e}" for gap in gaps)
                wrong.append(f"{name}: {what} {apart} from those of {name_of(first)}, wanted {most}")
        if line["peak_gib"] and abs(line["peak_gib"] / line["planned_gib"] - 1) > MAX_FROM_PLAN:
            wrong.append(f"{name}: peak {line['peak_gib']:.2f} GiB, planned {line['planned_gib']:.2f}")
    return wrong


def layouts(options: argparse.Namespace) -> list[tuple[int, list[str]]]:
    """Numbers of GPUs, and options of a rank that are measured beside none."""
    found = []
    for gpus in options.gpus:
        found.append((gpus, list[str]()))
        found += [(gpus, ["--flash"])] * (options.flash and gpus > 1)
        found += [(gpus, ["--host-inputs"])] * options.host_inputs
    return found


def in_ranks(options: argparse.Namespace, gpus: int, others: Sequence[str], folder: Path) -> dict[str, Any]:
    """Start a layout's ranks; what their first wrote."""
    out, log = (folder / f"{gpus}{''.join(others)}.{kind}" for kind in ("json", "log"))
    sizes = ["--shape", options.shape, "--tokens", str(options.tokens), "--prompt", str(options.prompt)]
    sizes += ["--updates", str(options.updates), "--device", options.device, "--rank-writes", str(out)]
    sizes += others
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(gpus), __file__]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "NCCL_CUMEM_ENABLE": "0"}
    with log.open("wb") as file:
        subprocess.run([*command, *sizes], stdout=file, stderr=file, env=env, cwd=ROOT, timeout=DEADLINE_S)
    if not out.exists():
        raise SystemExit(f"{gpus} GPUs: no result\n" + "\n".join(log.read_text(errors="replace").splitlines()[-40:]))
    return dict(json.loads(out.read_text()))


def show(line: dict[str, Any], options: argparse.Namespace) -> None:
    """Print a layout's line."""
    update, optimiser = (statistics.median(line[name]) for name in ("update_s", "optimiser_s"))
    print(
        f"{options.shape}, {options.tokens} tokens, {name_of(line)}: update {update:.2f} s, "
        f"of it optimiser {optimiser:.2f} s{' streamed' * line['streamed']}; "
        f"{line['tokens_per_s']:.0f} tokens/s"
    )
    if "mfu" in line:
        print(f"    MFU {line['mfu']:.3f}, of forward and backward alone {line['mfu_of_passes']:.3f}")
    print(
        f"    peak {line['peak_gib']:.2f} GiB, planned {line['planned_gib']:.2f}; gradient norm "
        f"{line['grad_norm'][0]:.5f}, mean log-prob {line['logprob'][0]:.5f}, after a step {line['logprob'][1]:.5f}",
        flush=True,
    )


def main() -> None:
    """Measure, print, write results/long_context.json; with --rank-writes be a rank."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="qwen3-4b", help="a known shape; NAME:LAYERS has the first layers only")
    parser.add_argument("--tokens", type=int, default=65536, help="of the row, prompt and answer")
    parser.add_argument("--prompt", type=int, default=1024)
    parser.add_argument("--updates", type=int, default=1, help="that are counted")
    parser.add_argument("--gpus", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--flash", action="store_true", help="ranks that share a row by FlashAttention alone, too")
    parser.add_argument("--host-inputs", action="store_true", help="with inputs of layers on the host, too")
    parser.add_argument("--rank-writes", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rank_writes:
        found = measure(options)
        if dist.get_rank() == 0:
            options.rank_writes.write_text(json.dumps(found))
        dist.barrier()
        dist.destroy_process_group()
        return
    name, lines = torch.cuda.get_device_name(0) if options.device == "cuda" else "a CPU", []
    with tempfile.TemporaryDirectory(prefix="ebbtide-long-") as folder:
        for gpus, others in layouts(options):
            line = in_ranks(options, gpus, others, Path(folder))
            lines.append({**line, **rates(line, options, name)})
            show(lines[-1], options)
    wrong = faults(lines, options.device)
    print("\n".join(wrong))
    if options.device == "cuda":
        seconds = {name_of(line): line["update_s"] for line in lines}
        facts = {"shape": options.shape, "tokens": options.tokens, "prompt": options.prompt}
        report("long_context", seconds, layouts=lines, faults=wrong, **facts)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
