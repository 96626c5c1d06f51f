"""What each training step asks to be sampled."""

from __future__ import annotations

from functools import partial

from core.config.schema import RolloutConfig
from core.data import PromptSource
from core.loop.state import LoopState
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
        """The request of step `state.next_step`, to weights of this version. Collective: none; equal on every rank."""
        return Request(
            key=f"train/{state.next_step}",
            prompts=self._prompts(state.data_position),
            num_samples=self._config.n_samples_per_prompt,
            sampling=partial(self._sampling, state.next_step),
            weight_version=weight_version,
            step=state.next_step,
            num_trained=self._config.rollout_batch_size,
            more=partial(self._more, state.data_position),
        )

    @property
    def _num_drawn(self) -> int:
        """Groups that are drawn at a time."""
        return self._config.over_sampling_batch_size or self._config.rollout_batch_size

    def _prompts(self, position: int) -> list[Prompt]:
        return [self._source.prompt(place) for place in range(position, position + self._num_drawn)]

    def _more(self, position: int, num_drawn: int) -> list[Prompt]:
        """What a step draws next that began at this position; none where it has drawn as often as it may."""
        has_rounds_left = num_drawn < self._config.filter_rounds * self._num_drawn
        return self._prompts(position + num_drawn) if has_rounds_left else []

    def _sampling(self, step: int, group: int, index: int) -> SamplingParams:
        return SamplingParams(
            max_response_tokens=self._config.max_response_tokens,
            temperature=self._config.temperature,
            top_p=self._config.top_p,
            top_k=self._config.top_k,
            stop_token_ids=self._stop_token_ids,
            seed=train_seed(self._config.seed, step, group, index),
        )
