"""A user's own generation, behind the interface of the rounds: each sample is a task in some worker process."""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self

from core.config.sections.rollout import RolloutConfig
from core.data import Rendering
from core.doors import ONE_TURN
from core.rollout import messages
from core.rollout.claims import MORE_THAN_FIT, Width
from core.rollout.generate import Answer, GroupGenerator, OneTurn, RoutedTurn
from core.rollout.routed import of_common_beginning
from core.rollout.task import Response, Task
from core.rollout.worker_process import Made, TaskFailed
from core.rollout.workers import Workers
from core.samples import Status
from core.sglang.client import EngineClient

SAMPLES_OF_A_WORKER = 128  # one turn each: with 512 in flight one worker costs 8 % of a rollout, four cost 1 %


def usual_workers(config: RolloutConfig) -> int:
    """Worker processes of a node, by the samples of a step; a quarter of its cores at most."""
    samples = config.rollout_batch_size * config.n_samples_per_prompt
    return max(1, min(-(-samples // SAMPLES_OF_A_WORKER), len(os.sched_getaffinity(0)) // 4))


class OwnGeneration:
    """Runs `rollout.generate` for every task. What goes wrong in it is a failed sample."""

    def __init__(
        self,
        config: RolloutConfig,
        model_dir: Path | None,
        decode: Callable[[Sequence[int]], str],
        renderings: Mapping[str, Rendering] = MappingProxyType({}),
        with_routing: bool = False,
    ) -> None:
        """Prepare the workers; `start` begins their processes.

        Args:
        model_dir: whose tokenizer the workers load; None: none.
        decode: token ids -> text.
        renderings: by the name of the evaluation set; empty: training.
        with_routing: whether engines are asked for their experts, in training.
        """
        settings = {
            "generate": config.generate,
            "options": config.generate_options,
            "section": config.model_dump(mode="json"),
            "model_dir": None if model_dir is None else str(model_dir),
            "renderings": {name: asdict(one) for name, one in renderings.items()},
        }
        count, timeout_s = config.generate_workers or usual_workers(config), config.generate_timeout_s
        self._workers = Workers(settings, count, timeout_s, decode, with_routing)

    def __enter__(self) -> Self:
        self._workers.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._workers.close()

    def width(self, num_groups: int, num_engines: int, in_flight: int, _may_wait: bool, /) -> Width:
        """A group per call. More are under way than fit: what the engine cannot take yet waits in it."""
        share = -(-num_groups // num_engines)
        return Width(max(1, min(share, MORE_THAN_FIT * in_flight)), 1)

    async def __call__(self, groups: Sequence[Sequence[Task]], engine: EngineClient) -> list[list[Answer]]:
        return await asyncio.wrap_future(self._workers.call(self._groups(groups, engine)))

    async def _groups(self, groups: Sequence[Sequence[Task]], engine: EngineClient) -> list[list[Answer]]:
        runs = [[asyncio.create_task(self._answers(task, engine)) for task in tasks] for tasks in groups]
        try:
            made = [await asyncio.gather(*group) for group in runs]
        finally:
            for run in (run for group in runs for run in group):
                run.cancel()
        return [[answer for answers in group for answer in answers] for group in made]

    async def _answers(self, task: Task, engine: EngineClient) -> list[Answer]:
        try:
            made = await self._workers.run(task, engine)
            return checked(task, made, engine.vocab_size())
        except TaskFailed as error:
            failure = f"{error}; row {task.row}, sample {task.index}"
            return [Answer(task.index, [], [], Status.FAILED, "", failure=failure)]


def build_generator(
    config: RolloutConfig,
    model_dir: Path,
    decode: Callable[[Sequence[int]], str],
    renderings: Mapping[str, Rendering] = MappingProxyType({}),
    with_routing: bool = False,
) -> GroupGenerator:
    """What `rollout.generate` names: one turn in the driver's process, or anything else in workers."""
    if config.generate == ONE_TURN:
        return RoutedTurn() if with_routing else OneTurn()
    return OwnGeneration(config, model_dir, decode, renderings, with_routing)


def checked(task: Task, made: Made, vocab_size: int) -> list[Answer]:
    """The samples of a task.

    Raises:
        TaskFailed: a response does not fit: what was found, what was wanted, and the function.
    """
    if not made.responses:
        raise TaskFailed(f"an empty list; wanted at least one Response ({made.place})")
    try:
        responses = [messages.read_response(fields) for fields in made.responses]
    except ValueError as error:
        raise TaskFailed(f"a response that cannot be read ({error}); wanted a Response ({made.place})") from error
    for response in responses:
        if misfit := _misfit(task, response, vocab_size):
            raise TaskFailed(f"{misfit} ({made.place})")
    return [_answer(task, response, made) for response in responses]


def _misfit(task: Task, response: Response, vocab_size: int) -> str:
    """What was found and wanted; empty: it fits."""
    length, limit = len(response.tokens), task.sampling.max_response_tokens
    mask = [1] * length if response.loss_mask is None else response.loss_mask
    if not 0 < length <= limit:
        return f"{length} tokens; wanted 1 to {limit} in the whole response (rollout.max_response_tokens)"
    for name, values in (("logprobs", response.logprobs), ("loss_mask", mask)):
        if len(values) != length:
            return f"{len(values)} {name} for {length} tokens; wanted one for each"
    for place, token in enumerate(response.tokens):
        if not 0 <= token < vocab_size:
            return f"token id {token} at position {place}; wanted ids in [0, {vocab_size})"
    for place, value in enumerate(response.logprobs):
        if not math.isfinite(value):
            return f"log-prob {value} at position {place}; wanted finite numbers"
    if not set(mask) <= {0, 1} or 1 not in mask:
        return f"a loss_mask of {sorted(set(mask))}; wanted 0 and 1, and 1 at the model's own tokens"
    ends = [0, *(place for one in response.turns for place in (one.start, one.end)), length]
    if response.turns and (ends != sorted(ends) or ends[::2] != ends[1::2]):
        return f"turns that are {ends[1:-1]}; wanted stretches that follow one another, from 0 to {length}"
    return ""


def _answer(task: Task, response: Response, made: Made) -> Answer:
    mask = [] if response.loss_mask is None else list(response.loss_mask)
    return Answer(
        task=task.index,
        tokens=list(response.tokens),
        logprobs=list(response.logprobs),
        status=response.status,
        weight_version=made.weight_version,
        loss_mask=mask,
        extra=response.extra,
        turns=response.turns,
        routing=of_common_beginning([*task.prompt_tokens, *response.tokens], made.routed),
    )
