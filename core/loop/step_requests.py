"""What each training step asks to be sampled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from core.config.sections.rollout import RolloutConfig
from core.data import PromptSource
from core.doors import ONE_TURN
from core.loop.state import LoopState
from core.rollout.carried import Carried, CarryOver, Origin, is_unfinished
from core.rollout.request import Request
from core.rollout.seeds import train_seed
from core.samples import Prompt, SamplingParams


def weight_version(step: int) -> str:
    """The stamp of the weights after `step` steps, with which step `step` samples if nothing overlaps."""
    return f"step{step}"


class TrainRequests:
    """A step's prompts and sampling settings, from the loop's state alone: a repeated step repeats its request."""

    def __init__(self, config: RolloutConfig, source: PromptSource, stop_token_ids: tuple[int, ...]) -> None:
        self._config = config
        self._source = source
        self._stop_token_ids = stop_token_ids

    def __call__(self, state: LoopState, weight_version: str) -> Request:
        """The request of step `state.next_step`, to weights of this version. Collective: none; equal on every rank.

        Groups that an earlier step has left come first, then new ones for those that are lacking.
        """
        carried = state.carried
        origin = partial(_origin, state)
        num_new = max(0, self._config.num_drawn - len(carried))
        old = [self._source.prompt(one.origin.position) for one in carried]
        prompts = [*old, *self._prompts(state.data_position, num_new)]
        return Request(
            key=f"train/{state.next_step}",
            prompts=prompts,
            num_samples=self._config.n_samples_per_prompt,
            sampling=partial(self._sampling, origin),
            weight_version=weight_version,
            step=state.next_step,
            num_trained=self._config.rollout_batch_size,
            more=partial(self._more, state),
            carry=self._carry,
            begun={
                group: [replace(sample, group=group, prompt=prompts[group]) for sample in one.samples]
                for group, one in enumerate(carried)
                if self._goes_on(one)
            },
            origin=origin,
        )

    def _goes_on(self, carried: Carried) -> bool:
        """Whether a group goes on as it is; it begins anew where the run file has changed since and it does not fit."""
        config = self._config
        fits = all(
            len(sample.response_tokens) + is_unfinished(sample) <= config.max_response_tokens
            for sample in carried.samples
        )
        return fits and len(carried.samples) == config.n_samples_per_prompt and config.generate == ONE_TURN

    @property
    def _carry(self) -> CarryOver | None:
        config = self._config
        if config.carry_over_tokens is None:
            return None
        return CarryOver(config.carry_over_tokens, config.carry_over_steps, config.mask_carried)

    def _prompts(self, position: int, count: int) -> list[Prompt]:
        return [self._source.prompt(place) for place in range(position, position + count)]

    def _more(self, state: LoopState, num_prompts: int) -> list[Prompt]:
        """What the step draws next that began at this state; none where it has drawn as often as it may."""
        if num_prompts >= self._config.filter_rounds * self._config.num_drawn:
            return []
        return self._prompts(state.data_position + num_prompts - len(state.carried), self._config.num_drawn)

    def _sampling(self, origin: Callable[[int], Origin], group: int, index: int) -> SamplingParams:
        drawn = origin(group)
        return SamplingParams(
            max_response_tokens=self._config.max_response_tokens,
            temperature=self._config.temperature,
            top_p=self._config.top_p,
            top_k=self._config.top_k,
            stop_token_ids=self._stop_token_ids,
            seed=train_seed(self._config.seed, drawn.step, drawn.group, index),
        )


def _origin(state: LoopState, group: int) -> Origin:
    """The place at which a group of the step was drawn: in an earlier step, or in this one."""
    num_carried = len(state.carried)
    if group < num_carried:
        return state.carried[group].origin
    return Origin(state.data_position + group - num_carried, state.next_step, group)
