"""One engine and one trainer of the same shape on one GPU, in turns: what the colocation benchmarks share.

The engine is a real server with empty weights; the trainer's are random. Everything between them is the real thing:
rendezvous, residency, weight sync, rollout.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from bench.gpu_trainer import RandomTrainer, make_config, make_trainer
from bench.model_dir import known_shape, write_model_dir
from bench.one_engine import NAME, free_port, one_engine
from common.units import GIB
from core.engines.roster import Engine, Engines
from core.planner import Device, plan_memory
from core.processes.rendezvous import Rendezvous
from core.residency import table
from core.residency.engines import EngineOwner
from core.residency.machine import Residency
from core.residency.memory import total_memory
from core.sglang.launch import EngineSpec
from core.weights.ipc import WeightIpc
from core.weights.sync import WeightSync


@dataclass
class Colocated:
    """Trainer and engines on the same GPUs, and what joins them."""

    trainer: RandomTrainer
    engines: Engines
    residency: Residency
    sync: WeightSync
    rendezvous: Rendezvous
    engine_start_s: float
    engine_residual_bytes: int  # device memory in use after the engine gave everything back, before there is a trainer
    staying: frozenset[str]  # parts of the trainer that never leave

    @property
    def engine(self) -> Engine:
        """The only one."""
        return self.engines.alive()[0]


def used_by_all() -> int:
    """Bytes in use on the first GPU that we may use, without touching it."""
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0]
    question = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "-i", first]
    return int(subprocess.run(question, capture_output=True, text=True, check=True).stdout) * 2**20


HOLD = "import sys, torch; x = torch.empty(int(sys.argv[1]), dtype=torch.uint8, device='cuda'); print(1); input()"


@contextmanager
def held_to(gib: float | None) -> Iterator[int | None]:
    """Bytes of the GPU, of which another process has what is more than `gib` (None: nobody has any)."""
    total = total_memory("cuda" if torch.cuda.is_available() else "cpu")
    if gib is None or total is None:
        yield total
        return
    kept = round(gib * GIB)
    words = [sys.executable, "-c", HOLD, str(total - kept)]
    holder = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline(), "the GPU has less free memory than is to be held"
        yield kept
    finally:
        holder.communicate(b"\n", timeout=60)


@contextmanager
def colocated(
    shape: str,
    *,
    engine_fraction: float,
    num_samples: int,
    offload: str = "auto",
    gpu_bytes: int | None = None,
    engine_options: Mapping[str, Any] | None = None,
    **train: Any,
) -> Iterator[Colocated]:
    """Start the engine, have it give everything back, build the trainer; at the end the engine is killed.

    Args:
        gpu_bytes: what the plan is for; None: what the GPU has.
        engine_options: of SGLang, as `placement.engine_options` has them.
    """
    folder = Path(tempfile.mkdtemp(prefix="ebbtide-bench-"))
    model_dir = write_model_dir(shape, folder / "model")
    device: Literal["cuda", "cpu"] = "cuda" if torch.cuda.is_available() else "cpu"
    spec = EngineSpec(
        *(NAME, model_dir, device, "bfloat16", "127.0.0.1", free_port()),
        memory_fraction=engine_fraction,
        max_running_requests=num_samples,
        num_threads=4,
        max_total_tokens=None if device == "cuda" else 8192,
        options=engine_options or {},
    )
    began = time.perf_counter()
    size = known_shape(shape)
    with one_engine(spec, size, folder) as (engines, rendezvous):
        start_s = time.perf_counter() - began
        owner = EngineOwner(engines, [NAME])
        owner.shrink_to(frozenset())
        residual = used_by_all() if device == "cuda" else 0  # this process has no context on the GPU yet
        placement = {"engine_memory_fraction": engine_fraction, "engine_max_running_requests": num_samples}
        config = make_config(num_samples, {**placement, "offload": offload}, **train)
        plan = plan_memory(config, size, Device(device, gpu_bytes or total_memory(device)), in_turns=True)
        staying = plan.staying
        trainer = make_trainer(shape, num_samples, streamed=plan.streamed, **train)
        trainer.memory.reserve(staying)
        residency = Residency((trainer.memory, owner), agree=lambda: None, device=device, table=table(staying))
        sync = WeightSync(trainer, engines, [WeightIpc(engines)], residency=residency)
        yield Colocated(trainer, engines, residency, sync, rendezvous, start_s, residual, staying)


def timed(act: Any, *arguments: Any) -> float:
    """Wall-clock seconds, the GPU's work included."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    began = time.perf_counter()
    act(*arguments)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began
