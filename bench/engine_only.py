"""A real engine with a known shape and empty weights under the real rollout, without a trainer: for benchmarks.

With such weights every token is about equally likely. With a share of the vocabulary as stop tokens responses have
geometric lengths.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist

from bench.model_dir import known_shape, write_model_dir
from bench.one_engine import NAME, free_port, one_engine
from core.engines.roster import Engines
from core.processes.rendezvous import Rendezvous
from core.reward import RewardInput, Score
from core.rollout.generate import GroupGenerator
from core.rollout.rollout import Rollout
from core.samples import Prompt
from core.sglang.client import EngineClient
from core.sglang.generation import Generation
from core.sglang.launch import EngineSpec


class Others:
    """Rewards, sync and tokenizer, which take no time."""

    def submit(self, _sample: RewardInput) -> Future[Score]:
        done: Future[Score] = Future()
        done.set_result(Score(1.0))
        return done

    def push(self, _version: str) -> bool:
        return False

    def decode(self, _tokens: Sequence[int]) -> str:
        return ""


class Counted:
    """Response tokens that an engine has made; wraps its client."""

    def __init__(self, client: EngineClient) -> None:
        self._groups, self._one = client.generate_groups, client.generate
        self.num_tokens = 0
        anything: Any = client
        anything.generate_groups, anything.generate = self.generate_groups, self.generate

    async def generate_groups(self, *arguments: Any) -> list[list[Generation]]:
        made = await self._groups(*arguments)
        self.num_tokens += sum(len(one.tokens) for group in made for one in group)
        return made

    async def generate(self, *arguments: Any, **options: Any) -> Generation:
        made = await self._one(*arguments, **options)
        self.num_tokens += len(made.tokens)
        return made


@dataclass
class EngineOnly:
    """One engine, and what it takes to have rollouts over it."""

    engines: Engines
    rendezvous: Rendezvous
    counted: Counted
    vocab_size: int
    slots: int

    @property
    def client(self) -> EngineClient:
        return self.engines.alive()[0].client

    def rollout(self, generator: GroupGenerator | None = None) -> Rollout:
        """A rollout as a run has it, but for rewards that take no time."""
        others: Any = Others()
        parts = (self.rendezvous, self.engines, others, others, others, self.slots, 1)
        return Rollout(*parts, generator=generator)

    def prompts(self, count: int, length: int) -> list[Prompt]:
        """Random tokens; always the same."""
        rng = random.Random(0)
        most = min(40000, self.vocab_size)
        return [Prompt(row, "", tuple(rng.randrange(10, most) for _ in range(length)), None) for row in range(count)]


@contextmanager
def engine_only(
    shape: str, *, slots: int, fraction: float, cpu_tokens: int = 16384, **options: Any
) -> Iterator[EngineOnly]:
    """Start the engine; at the end it is killed.

    Args:
        slots: samples that it works on at a time.
        fraction: of the GPU's memory, for weights and KV cache.
        options: further ones of SGLang.
    """
    folder = Path(tempfile.mkdtemp(prefix="ebbtide-bench-"))
    size = known_shape(shape)
    device: Literal["cuda", "cpu"] = "cuda" if torch.cuda.is_available() else "cpu"
    spec = EngineSpec(
        *(NAME, write_model_dir(shape, folder / "model"), device, "bfloat16", "127.0.0.1", free_port()),
        memory_fraction=fraction,
        max_running_requests=slots,
        num_threads=4 if device == "cuda" else 1,
        max_total_tokens=None if device == "cuda" else cpu_tokens,
        options=options,
    )
    dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=0, world_size=1)
    try:
        with one_engine(spec, size, folder) as (engines, rendezvous):
            yield EngineOnly(engines, rendezvous, Counted(engines.alive()[0].client), size.vocab_size, slots)
    finally:
        dist.destroy_process_group()
