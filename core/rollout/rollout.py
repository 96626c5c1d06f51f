"""The rollout: prompt groups in, scored samples out, whatever happens to an engine in between.

Every node's driver rank claims groups from a shared counter and has its engines answer them; scoring starts as soon as
a response is there, in other processes. When the counter runs dry the ranks compare notes: groups that are missing
because an engine died are handed out again in another round, after the engine's restart if nobody else is left.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any

from core.engines.roster import Engine, Engines
from core.pretrained.tokenizer import Tokenizer
from core.processes import keys
from core.processes.collective import any_rank, gather_lists
from core.processes.rendezvous import Rendezvous
from core.reward import RewardInput, Rewards, Score
from core.rollout.carried import continued
from core.rollout.claims import MORE_THAN_FIT, Claims, Width
from core.rollout.generate import Answer, GroupGenerator, OneTurn
from core.rollout.group_filter import GroupFilter
from core.rollout.request import Generated, Request
from core.rollout.step_groups import StepGroups
from core.samples import EPISODE, Sample, Status
from core.sglang.background import in_background
from core.sglang.errors import EngineDied
from core.weights.sync import Sync

MAX_ROUNDS = 10  # of one step; more engine deaths than that are no accident
PAUSE_LOOK_S = 1.0  # between looks at whether the run is to pause

log = logging.getLogger(__name__)


class PauseAsked(Exception):
    """The run is to be saved and left while a rollout is under way. Raised on every rank; the text is the reason."""


class Pending:
    """A rollout under way: this rank's engines work on it, in a thread that asks no other rank for anything."""

    def __init__(self, first_round: Future[None], finish: Callable[[str | None], Generated]) -> None:
        self._first_round = first_round
        self._finish = finish

    def finish(self, weight_version: str | None = None) -> Generated:
        """Wait for it, and have groups that are still missing answered.

        Args:
            weight_version: of the trainer's weights, if an update came since the start: engines that have died in
                between, and those that take over their groups, get these. None: as in the request.
        Raises:
            EngineDied: if groups are still missing after 10 rounds, or no engine comes back in time.
        Collective: all trainer ranks.
        """
        self._first_round.result()
        return self._finish(weight_version)


class Rollout:
    """Drives this rank's engines. Collective: all trainer ranks call every method, in one order."""

    def __init__(
        self,
        rendezvous: Rendezvous,
        engines: Engines,
        sync: Sync,
        tokenizer: Tokenizer,
        rewards: Rewards,
        max_running_requests: int,
        num_engines: int,
        generator: GroupGenerator | None = None,
        generators_of_sets: Mapping[str, GroupGenerator] = MappingProxyType({}),
        group_filter: GroupFilter | None = None,
    ) -> None:
        """Keep the parts of a rollout.

        Args:
        max_running_requests: how many samples an engine works on at a time.
        num_engines: of the whole run.
        generator: how groups are answered, open on ranks that drive engines; None: by one request each.
        generators_of_sets: by name, those of evaluation sets that are answered otherwise.
        group_filter: chooses groups, where a request asks for it; None: all are taken.
        """
        self._rendezvous = rendezvous
        self._engines = engines
        self._sync = sync
        self._tokenizer = tokenizer
        self._rewards = rewards
        self._max_running_requests = max_running_requests
        self._num_engines = num_engines
        self._generator = generator or OneTurn()
        self._generators_of_sets = generators_of_sets
        self._groups = StepGroups(group_filter)
        self._under_way = ""  # the request that was started and is not finished
        self._may_break_off = False  # for a pause

    def generate(self, request: Request) -> Generated:
        """Have every group answered exactly once, by some engine of some node: `start`, and `finish` at once.

        Raises:
            PauseAsked: if the run is to pause while groups are missing: nobody answers them any more. Between `start`
                and `finish` that is not asked: an update may lie there, whose step is not yet noted as complete.
        """
        self._may_break_off = True
        try:
            return self.start(request).finish()
        finally:
            self._may_break_off = False

    def start(self, request: Request) -> Pending:
        """Begin to have every group answered; returns at once.

        Until it is finished no other rollout may start, no weights may be pushed, and the engines must keep their
        memory. Collective: all trainer ranks, as each takes a share; none waits for another.

        Raises:
            RuntimeError: another rollout is not finished.
        """
        if self._under_way:
            raise RuntimeError(f"rollout {request.key} started while {self._under_way} is under way: finish that first")
        self._under_way = request.key
        made = self._groups.take_over(request)
        request = replace(request, begun=made.begun)
        first = in_background(self._answer, request, made.asked, made)
        return Pending(first, partial(self._complete, request, made))

    def _complete(self, request: Request, made: Generated, weight_version: str | None) -> Generated:
        """All groups that are asked for, and others while the step has not enough."""
        self._under_way = ""
        while True:
            self._answer_missing(request, made, weight_version)
            made.asked, made.answered = self._groups.next_groups(request, made), set()
            if not made.asked:
                return made
            request = replace(request, prompts=made.prompts, begun=made.begun)
            self._answer(request, made.asked, made)

    def _answer_missing(self, request: Request, made: Generated, weight_version: str | None) -> None:
        """Further rounds, while groups are missing."""
        for _ in range(1, MAX_ROUNDS):
            missing = self._groups.missing(made)
            if not missing:
                return
            self._leave_if_asked()
            log.warning("rollout=%s round=%d groups_missing=%d", request.key, made.num_rounds - 1, len(missing))
            if not any_rank(bool(self._engines.alive())):
                self._engines.await_restarted()
            self._sync.push(weight_version or request.weight_version)
            self._answer(request, missing, made)
        if missing := self._groups.missing(made):
            raise EngineDied(f"{len(missing)} groups of {request.key} still missing after {MAX_ROUNDS} rounds")

    def _leave_if_asked(self) -> None:
        """Raise PauseAsked if the run is to pause. Collective: all trainer ranks, which may hear of it one by one."""
        if reasons := gather_lists([reason] if (reason := self._pause_reason()) else []):
            raise PauseAsked(reasons[0])

    def _pause_reason(self) -> str | None:
        return self._rendezvous.get(keys.PAUSE_ASKED) if self._may_break_off else None

    def _answer(self, request: Request, groups: Sequence[int], made: Generated) -> None:
        """This rank's part in a round."""
        claims = Claims(self._rendezvous, f"{request.key}/{made.num_rounds}", groups)
        made.num_rounds += 1
        asyncio.run(self._round(claims, self._width(groups, request), request, made))

    def settle(self, made: Generated) -> list[Sample]:
        """Wait for the scores and bring all ranks' samples together, in order of group and index, on every rank.

        Of training samples only the groups that `rollout.filter` chooses.

        Raises:
            TooManyFailures: on every rank, if a filter chooses, and too many samples have no reward.
            RewardsUnavailable: on every rank, if some rank's samples can be scored by nobody.
        Collective: all trainer ranks. Waits as long as the reward pool's own time limits allow.
        """
        return self._groups.settle(made)

    def take_counts(self) -> dict[str, float]:
        """Numbers of groups of the step that was settled last, under their metric names; once."""
        return self._groups.take_counts()

    def _width(self, groups: Sequence[int], request: Request) -> Width:
        per_group = -(-sum(map(request.num_tasks, groups)) // max(1, len(groups)))
        in_flight = max(1, self._max_running_requests // max(1, per_group))
        if request.carry is not None:
            in_flight *= MORE_THAN_FIT
        return self._generator_of(request).width(len(groups), self._num_engines, in_flight, request.is_short)

    def _generator_of(self, request: Request) -> GroupGenerator:
        return self._generators_of_sets.get(request.evaluation, self._generator)

    async def _round(self, claims: Claims, width: Width, request: Request, made: Generated) -> None:
        workers = [
            self._work(engine, claims, width.groups, request, made)
            for _ in range(width.requests)  # engine by engine in turns: each claims once before any claims twice
            for engine in self._engines.alive()
        ]
        work = asyncio.gather(*workers)
        while not (await asyncio.wait({work}, timeout=PAUSE_LOOK_S))[0]:
            if self._pause_reason():
                await self._break_off(work)
                return
        await work

    async def _break_off(self, work: asyncio.Future[Any]) -> None:
        """Wait for no more answers, and have the engines make none: they may have to give up their memory."""
        work.cancel()
        await asyncio.wait({work})
        for engine in self._engines.alive():
            try:
                await asyncio.to_thread(engine.client.abort)
            except EngineDied as error:
                self._engines.mark_dead(engine, error)

    async def _work(self, engine: Engine, claims: Claims, count: int, request: Request, made: Generated) -> None:
        """Claim and answer groups until there are none left or the engine dies."""
        while engine.alive and (groups := claims.next(count)):
            try:
                answers = await self._generator_of(request)([request.tasks(group) for group in groups], engine.client)
            except EngineDied as error:
                self._engines.mark_dead(engine, error)
                return
            for group, made_of_it in zip(groups, answers, strict=True):
                self._note(group, made_of_it, request, engine, made)

    def _note(self, group: int, answers: Sequence[Answer], request: Request, engine: Engine, made: Generated) -> None:
        """The samples of a group, each with its score under way unless its response is to grow on."""
        begun = {one.task: one for one in request.begun.get(group, ())}
        for index, answer in enumerate(answers):
            before = begun.get(answer.task)
            sample = _sample(group, index if before is None else before.index, request, answer, engine)
            sample = sample if before is None else continued(before, sample)
            if request.grows_on(sample):
                made.grown.append(replace(sample, status=Status.ABORTED))
                continue
            self._add_texts(sample)
            made.samples.append(sample)
            made.scores.append(_failed(sample) or self._rewards.submit(reward_input(sample, answer.extra, request)))
        made.answered.add(group)

    def _add_texts(self, sample: Sample) -> None:
        tokens = sample.response_tokens
        sample.response_text = self._tokenizer.decode(tokens)
        sample.turns = [replace(one, text=self._tokenizer.decode(tokens[one.start : one.end])) for one in sample.turns]


def _sample(group: int, index: int, request: Request, answer: Answer, engine: Engine) -> Sample:
    return Sample(
        group=group,
        index=index,
        prompt=request.prompts[group],
        response_tokens=answer.tokens,
        logprobs_engine=answer.logprobs,
        status=answer.status,
        weight_version=answer.weight_version or request.weight_version,
        loss_mask=answer.loss_mask,
        failure=answer.failure,
        engine=engine.name,
        task=answer.task,
        turns=answer.turns,
        episode=_counts(answer.extra),
        seed=request.sampling(group, answer.task).seed,
        routing=answer.routing,
    )


def _counts(extra: Mapping[str, Any]) -> dict[str, int]:
    """What a generation tells of its episode in numbers, as the built-in dialogue does."""
    told = extra.get("episode")
    if not isinstance(told, Mapping):
        return {}
    return {name: told[name] for name in EPISODE if type(told.get(name)) is int}


def _failed(sample: Sample) -> Future[Score] | None:
    """The score of a sample that was never made."""
    if sample.failure is None:
        return None
    score: Future[Score] = Future()
    score.set_result(Score(None, sample.failure))
    return score


def reward_input(sample: Sample, extra: Mapping[str, Any], request: Request) -> RewardInput:
    """What the reward is told of a sample.

    Args:
        extra: of the generation, beside what the row has.
    """
    metadata = sample.prompt.metadata
    return RewardInput(
        prompt_text=sample.prompt.text,
        response_text=sample.response_text,
        label=sample.prompt.label,
        metadata={**metadata, **extra} if extra else metadata,
        messages=sample.prompt.messages,
        num_prompt_tokens=len(sample.prompt.tokens),
        num_response_tokens=len(sample.response_tokens),
        max_response_tokens=request.sampling(sample.group, sample.task).max_response_tokens,
        truncated=sample.status is Status.TRUNCATED,
        row=sample.prompt.row,
        group=sample.group,
        index=sample.index,
        step=request.step,
        evaluation=request.evaluation,
    )
