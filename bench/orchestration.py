"""What the loop itself costs: a step less generating, training, sync and switch measured alone on the same batch.

The real loop over real parts; only data, checkpoints and journal are left out. Responses have a fixed length and a
reward that differs within each group, so that every sample is trained on. An engine does not generate equally fast each
time, so the loop's cost is told a second time with the step's own generating in place of that alone: from its first
request to its last answer, so that what the loop does before and after counts as its cost.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import random
import statistics
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

from bench import park, weight_sync
from bench.colocated import Colocated, colocated, held_to, timed
from bench.record import report
from common.units import GIB
from core.algorithm.batch import Batch, make_batch
from core.algorithm.estimate import build_advantages
from core.config.sections.algorithm import AlgorithmConfig
from core.config.sections.reward import RewardConfig
from core.loop import in_turns as loop
from core.loop.parts import Parts
from core.loop.phases import Phases
from core.loop.state import LoopState
from core.residency.memory import read_memory
from core.reward import RewardPool
from core.rollout.generate import group_request
from core.rollout.request import Request
from core.rollout.rollout import Rollout
from core.samples import Prompt, SamplingParams, UpdateResult

STEPS, ALONE = 4, 3  # the first step is not counted


class Asked:
    """How long an engine was asked, from the first request to the last answer; wraps its client."""

    def __init__(self, client: Any) -> None:
        self._generate, client.generate_groups = client.generate_groups, self._watched
        self._began, self._ended = math.inf, -math.inf

    async def _watched(self, *arguments: Any) -> Any:
        self._began = min(self._began, time.perf_counter())
        answers = await self._generate(*arguments)
        self._ended = time.perf_counter()
        return answers

    def take_seconds(self) -> float:
        """Seconds since the last call."""
        seconds, self._began = self._ended - self._began, math.inf
        return seconds


class Stub:
    """Tokenizer, evaluation, checkpoints, pause and journal of a run that has none of them."""

    def __init__(self, asked: Asked) -> None:
        self.times: list[dict[str, float]] = []
        self.batches: list[Batch] = []
        self._asked = asked

    def decode(self, tokens: list[int]) -> str:
        return str(tokens[0] % 2 if tokens else 0)

    def due(self, _step: int) -> bool:
        return False

    def stepped(self, _step: int, batch: Batch, _result: UpdateResult, times: dict[str, float]) -> None:
        self.times.append({**times, "generate": self._asked.take_seconds(), "ended": time.perf_counter()})
        self.batches.append(batch)


def make_request(vocab: int, groups: int, group_size: int, prompt: int, response: int) -> Any:
    """Random prompts, the same in every step; responses of fixed length, for random weights never stop."""
    rng = random.Random(0)
    prompts = [Prompt(g, "", tuple(rng.randrange(10, vocab) for _ in range(prompt)), "1") for g in range(groups)]

    def request(state: LoopState, weight_version: str) -> Request:
        def sampling(group: int, index: int) -> SamplingParams:
            return SamplingParams(response, seed=group * 1000 + index)

        return Request(f"s{state.next_step}", prompts, group_size, sampling, weight_version)

    return request


async def generate_alone(both: Colocated, request: Request) -> None:
    """All groups at once, straight to the engine."""
    groups = [group_request(request.tasks(number)) for number in range(len(request.prompts))]
    if request.is_short:
        await both.engine.client.generate_groups(groups)
    else:
        await asyncio.gather(*(both.engine.client.generate_groups([group]) for group in groups))


def run_loop(both: Colocated, request: Any, stub: Any, width: int) -> tuple[list[float], list[float]]:
    """Seconds of each whole step, and of the switches in it."""
    rewards = RewardPool(RewardConfig(type="exact", num_workers=2))
    phases = Phases(lambda _: None, both.residency)
    with rewards:
        rollout = Rollout(both.rendezvous, both.engines, both.sync, stub, rewards, width, num_engines=1)
        began = time.perf_counter()
        parts = Parts(
            phase=phases,
            state=LoopState(),
            trainer=both.trainer,
            sync=both.sync,
            rollout=rollout,
            evaluation=stub,
            journal=stub,
            checkpoints=stub,
            pause=stub,
            advantages=build_advantages(AlgorithmConfig()),
            request=request,
            max_failed_share=0.0,
            num_steps=STEPS,
        )
        loop.run(parts)
    ends = [began, *(times["ended"] for times in stub.times)]
    return [b - a for a, b in pairwise(ends)], [t["perf/switch_time"] for t in stub.times]


def rest_of_unpark() -> float:
    """Seconds until Adam's moments have arrived too; in the loop computing does not wait for them."""
    began = time.perf_counter()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


def measure(both: Colocated, groups: int, group_size: int, prompt: int, response: int) -> dict[str, Any]:
    """The loop, then its pieces alone on the batch of its last step."""
    stub: Any = Stub(Asked(both.engine.client))
    vocab = min(40000, both.trainer.shape.vocab_size)
    request = make_request(vocab, groups, group_size, prompt, response)
    steps, switches = run_loop(both, request, stub, groups * group_size)
    batch = stub.batches[-1]
    samples = make_batch(batch.samples, build_advantages(AlgorithmConfig())).train_samples()
    alone: dict[str, list[float]] = {"generate": [], "train": [], "sync": [], "switch": []}
    used: dict[str, float] = {}
    both.residency.take_seconds()
    for number in range(ALONE):
        both.residency.enter("sync")
        alone["sync"].append(timed(weight_sync.push, both, f"alone{number}"))
        both.residency.enter("rollout")
        used["rollout"] = read_memory("cuda").used / GIB if torch.cuda.is_available() else 0.0
        alone["generate"].append(timed(lambda: asyncio.run(generate_alone(both, request(LoopState(), "alone")))))
        both.residency.enter("score")
        used["score"] = read_memory("cuda").used / GIB if torch.cuda.is_available() else 0.0
        both.residency.enter("update")
        moments_s = rest_of_unpark()
        alone["train"].append(timed(both.trainer.update, samples))
        used["update"] = read_memory("cuda").used / GIB if torch.cuda.is_available() else 0.0
        both.residency.enter("sync")
        alone["switch"].append(both.residency.take_seconds() + moments_s)
    step = statistics.median(steps[1:])
    parts = {name: statistics.median(values) for name, values in alone.items()}
    generating = [times["generate"] for times in stub.times]
    own = {"generate": statistics.median(generating[1:])}
    return {
        "steps": steps,
        "switches": switches,
        "generating": generating,
        "alone": alone,
        "overhead_share": (step - sum(parts.values())) / step,
        "overhead_share_own_generating": (step - sum((parts | own).values())) / step,
        "switch_share": statistics.median(switches[1:]) / step,
        "speed_against_engine_plus_trainer": (parts["generate"] + parts["train"]) / step,
        "speed_against_own_generating_plus_trainer": (own["generate"] + parts["train"]) / step,
        "tokens": groups * group_size * (prompt + response),
        "used_gib": used,
        "phases": stub.times[-1],
        "train_metrics": {"silent": sum(s.advantage == 0 for s in samples)},
    }


def main() -> None:
    """Measure, print, write; with --sync and --park also those results, with the same engine."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", default="qwen3-4b")
    parser.add_argument("--groups", type=int, default=16)
    parser.add_argument("--group-size", type=int, default=8)
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--response", type=int, default=512)
    parser.add_argument("--max-tokens", type=int, default=8192)
    parser.add_argument("--fraction", type=float, default=0.6)
    parser.add_argument("--offload", default="auto", choices=["auto", "on"], help="on: all of the trainer leaves")
    parser.add_argument("--gib", type=float, help="a GPU of this size: another process has the rest")
    parser.add_argument("--state", default="auto", choices=["auto", "resident", "streamed"], help="the optimizer's")
    parser.add_argument("--attention", help="the engine's attention_backend")
    parser.add_argument("--sync", action="store_true")
    parser.add_argument("--park", action="store_true")
    options = parser.parse_args()
    os.environ["EBBTIDE_API_KEY"] = ""
    samples = options.groups * options.group_size
    train = {"recompute": "full", "max_tokens_per_micro_batch": options.max_tokens, "optimizer_state": options.state}
    sizes: dict[str, Any] = {"engine_fraction": options.fraction, "num_samples": samples, "offload": options.offload}
    sizes["engine_options"] = {"attention_backend": options.attention} if options.attention else None
    with held_to(options.gib) as gpu_bytes, colocated(options.shape, gpu_bytes=gpu_bytes, **sizes, **train) as both:
        if options.sync:
            weight_sync.write([weight_sync.measure(both, options.shape)])
        found = measure(both, options.groups, options.group_size, options.prompt, options.response)
        both.residency.enter("update")
    if options.park:  # the engine is gone: what is used is the trainer's
        park.measure(both.trainer, after=f"{STEPS} steps of the loop")
    seconds = {"step": found["steps"], **found.pop("alone")}
    seconds |= {"switch in the loop": found.pop("switches"), "generate in the loop": found.pop("generating")}
    facts = {"engine_start_s": both.engine_start_s, "engine_residual_gib": both.engine_residual_bytes / GIB}
    facts["staying"] = sorted(both.staying)
    facts["answer_tokens_per_s"] = samples * options.response / statistics.median(seconds["generate in the loop"][1:])
    facts |= {
        "attention": options.attention,
        "held_to_gib": options.gib,
        "streamed": bool(both.trainer.policy.optimizer.streams),
    }
    report("orchestration", seconds, shape=options.shape, **facts, **found)


if __name__ == "__main__":
    main()
