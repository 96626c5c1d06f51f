"""What the longest responses of a step cost, and what carry-over saves: tokens/s of rollouts with geometric lengths.

Beside it, from the same run: the engine alone, given all samples of all steps at once, with the same lengths and with
equal ones. Steps are rollouts as a run has them; nothing is trained, so weights stay the same.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.engine_only import EngineOnly, engine_only
from bench.record import report
from core.config.sections.rollout import RolloutConfig
from core.data import PromptSource
from core.loop.state import LoopState
from core.loop.step_requests import TrainRequests, weight_version
from core.samples import Prompt, SamplingParams
from core.sglang.generation import GroupRequest


def stop_ids(vocab_size: int, mean_tokens: float) -> tuple[int, ...]:
    """Random token ids of which one comes after `mean_tokens` on average, where every token is equally likely."""
    return tuple(sorted(random.Random(1).sample(range(vocab_size), max(1, round(vocab_size / mean_tokens)))))


def alone(engine: EngineOnly, prompts: Sequence[Prompt], group_size: int, params: SamplingParams) -> None:
    """All groups at once, each a request: the engine is full until the last ones."""
    groups = [GroupRequest(prompt.tokens, [params] * group_size) for prompt in prompts]

    async def ask() -> None:
        await asyncio.gather(*(engine.client.generate_groups([group]) for group in groups))

    asyncio.run(ask())


def steps_of(
    engine: EngineOnly, name: str, prompts: list[Prompt], stops: tuple[int, ...], count: int, **settings: Any
) -> Callable[[], list[dict[str, float]]]:
    """Rollouts of a number of steps: seconds, tokens, and what is carried over, of each."""

    def run() -> list[dict[str, float]]:
        config = RolloutConfig(num_rollout=count, **settings)
        requests, rollout = TrainRequests(config, PromptSource(prompts, 0, False, 0), stops), engine.rollout()
        state, found = LoopState(), []
        for _ in range(count):
            began, before = time.perf_counter(), engine.counted.num_tokens
            request = requests(state, weight_version(state.next_step))
            request = replace(request, key=f"{name}/{state.next_step}")  # groups of a key are handed out once
            made = rollout.generate(request)
            seconds, tokens = time.perf_counter() - began, engine.counted.num_tokens - before
            samples = rollout.settle(made)
            state = state.after(made)
            trained = sum(len(sample.response_tokens) for sample in samples)
            measured = {"seconds": seconds, "tokens": tokens, "trained_tokens": trained, "looks": made.num_rounds}
            found.append({**measured, **rollout.take_counts()})
        return found

    return run


def rate(steps: Sequence[dict[str, float]]) -> float:
    """Tokens/s over all steps but the first."""
    return sum(step["tokens"] for step in steps[1:]) / sum(step["seconds"] for step in steps[1:])


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", default="qwen3-4b")
    parser.add_argument("--groups", type=int, default=64)
    parser.add_argument("--group-size", type=int, default=8)
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--mean", type=float, default=506.0, help="tokens of a response")
    parser.add_argument("--longest", type=int, default=4096)
    parser.add_argument("--slots", type=int, default=128)
    parser.add_argument("--drawn", type=int, default=128, help="groups under way with carry-over")
    parser.add_argument("--carry", type=int, nargs="+", default=[256, 512], help="tokens at a time; each is measured")
    parser.add_argument("--steps", type=int, default=5, help="the first is not counted")
    parser.add_argument("--fraction", type=float, default=0.8)
    options = parser.parse_args()
    os.environ["EBBTIDE_API_KEY"] = ""
    step = {"rollout_batch_size": options.groups, "n_samples_per_prompt": options.group_size}
    step |= {"max_response_tokens": options.longest}
    rates: dict[str, float] = {}
    seconds: dict[str, list[float]] = {}
    facts: dict[str, Any] = {}
    with engine_only(options.shape, slots=options.slots, fraction=options.fraction) as engine:
        stops = stop_ids(engine.vocab_size, options.mean)
        prompts = engine.prompts(options.groups * options.steps + options.drawn, options.prompt)
        both = prompts[: 2 * options.groups]  # two steps of them
        same = SamplingParams(options.longest, stop_token_ids=stops)
        equal = SamplingParams(round(options.mean))
        alone(engine, both[:8], options.group_size, SamplingParams(16))  # what is compiled at first use
        for name, params in (("engine alone", same), ("engine alone, equal lengths", equal)):
            began, before = time.perf_counter(), engine.counted.num_tokens
            alone(engine, both, options.group_size, params)
            seconds[name] = [time.perf_counter() - began]
            rates[name] = (engine.counted.num_tokens - before) / seconds[name][0]
            print(name, round(rates[name]), flush=True)
        cases = {"each step to its end": step}
        for tokens in options.carry:
            carry = {"over_sampling_batch_size": options.drawn, "carry_over_tokens": tokens, "carry_over_steps": 8}
            cases[f"carried over, {tokens} tokens"] = {**step, **carry}
        for name, settings in cases.items():
            found = steps_of(engine, name, prompts, stops, options.steps, **settings)()
            seconds[name] = [one["seconds"] for one in found]
            rates[name], facts[name] = rate(found), found
            print(name, round(rates[name]), flush=True)
    best = max(rate for name, rate in rates.items() if name.startswith("carried"))
    facts["tokens_per_s"] = rates
    facts["carried_of_alone"] = best / rates["engine alone"]
    facts["carried_of_each_step"] = best / rates["each step to its end"]
    report("long_tail", seconds, **{**vars(options), **facts, "steps": options.steps})


if __name__ == "__main__":
    main()
