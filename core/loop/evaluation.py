"""Evaluation: the kept-out prompts, answered by the same engines with the weights of the moment."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from core.algorithm.batch import pass_rates
from core.config.schema import EvalConfig, RolloutConfig
from core.data import PromptSource
from core.rollout.request import Request
from core.rollout.rollout import Rollout
from core.rollout.seeds import sample_seed
from core.samples import SamplingParams


class EvaluationSets:
    """The sets of a run, and when they are evaluated: before the first step, at the interval, after the last step."""

    def __init__(self, config: EvalConfig, rollout_config: RolloutConfig, sources: Mapping[str, PromptSource]) -> None:
        self._config = config
        self._rollout_config = rollout_config
        self._sources = sources

    @property
    def num_prompts(self) -> dict[str, int]:
        """Set -> number of its prompts."""
        return {name: len(source) for name, source in self._sources.items()}

    def due(self, step: int) -> bool:
        """Whether step `step` begins with an evaluation."""
        if not self._sources:
            return False
        at_the_ends = step in (0, self._rollout_config.num_rollout)
        return at_the_ends or (self._config.interval > 0 and step % self._config.interval == 0)


class Evaluation(EvaluationSets):
    """Has the engines answer the prompts."""

    def __init__(
        self,
        config: EvalConfig,
        rollout_config: RolloutConfig,
        sources: Mapping[str, PromptSource],
        rollout: Rollout,
        stop_token_ids: tuple[int, ...],
    ) -> None:
        super().__init__(config, rollout_config, sources)
        self._rollout = rollout
        self._stop_token_ids = stop_token_ids

    def run(self, step: int, weight_version: str) -> dict[str, dict[str, float]]:
        """Rates of every set: {"set": {"accuracy": 0.5, "pass@4": 0.8}}.

        Args:
            weight_version: what the engines have, and get again after a restart.
        Collective: all trainer ranks.
        """
        return {name: self._run_set(name, source, step, weight_version) for name, source in self._sources.items()}

    def _run_set(self, name: str, source: PromptSource, step: int, weight_version: str) -> dict[str, float]:
        request = Request(
            key=f"eval/{name}/{step}",
            prompts=[source.prompt(position) for position in range(len(source))],
            num_samples=self._config.n_samples_per_prompt,
            sampling=partial(self._sampling, name, step),
            weight_version=weight_version,
            step=step,
            evaluation=name,
        )
        return pass_rates(self._rollout.settle(self._rollout.generate(request)))

    def _sampling(self, name: str, step: int, group: int, index: int) -> SamplingParams:
        return SamplingParams(
            max_response_tokens=self._config.max_response_tokens or self._rollout_config.max_response_tokens,
            temperature=self._config.temperature,
            top_p=self._config.top_p,
            top_k=self._config.top_k,
            stop_token_ids=self._stop_token_ids,
            seed=sample_seed(self._rollout_config.seed, f"eval/{name}", step, group, index),
        )
