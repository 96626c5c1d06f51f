"""Evaluation: the kept-out prompts, answered by the same engines with the weights of the moment."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from core.algorithm.rates import evaluation_rates
from core.config.sections.eval import EvalConfig, EvalSet
from core.config.sections.rollout import RolloutConfig
from core.data import PromptSource
from core.rollout.request import Request
from core.rollout.rollout import Rollout
from core.rollout.seeds import sample_seed
from core.samples import Sample, SamplingParams

Keep = Callable[[str, int, Sequence[Sample], Mapping[str, float]], None]  # set, step, its samples, its rates
AnswerOf = Callable[[str], str | None]  # the text of a response -> its answer; None: it has none


class EvaluationSets:
    """The sets of a run, and when each is evaluated: before the first step, at its interval, after the last step."""

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
        return any(self._is_due(name, step) for name in self._sources)

    def _due_sets(self, step: int) -> dict[str, PromptSource]:
        """What an evaluation before this step is of; all sets, if it comes at another time."""
        found = {name: source for name, source in self._sources.items() if self._is_due(name, step)}
        return found or dict(self._sources)

    def _is_due(self, name: str, step: int) -> bool:
        if step == 0:
            return not self._config.skip_first
        interval = self._config.interval_of(name)
        return step == self._rollout_config.num_rollout or (interval > 0 and step % interval == 0)


class Evaluation(EvaluationSets):
    """Has the engines answer the prompts."""

    def __init__(
        self,
        config: EvalConfig,
        rollout_config: RolloutConfig,
        sources: Mapping[str, PromptSource],
        rollout: Rollout,
        stop_token_ids: tuple[int, ...],
        keep: Keep | None = None,
        answers_of: Mapping[str, AnswerOf | None] | None = None,
    ) -> None:
        """Keep the parts of an evaluation.

        Args:
        keep: told of the samples of each set.
        answers_of: by set, a response's answer in it, for those that tell maj@k.
        """
        super().__init__(config, rollout_config, sources)
        self._rollout = rollout
        self._stop_token_ids = stop_token_ids
        self._keep = keep
        self._answers_of = answers_of or {}

    def run(self, step: int, weight_version: str) -> dict[str, dict[str, float]]:
        """Rates of every set that is due: {"set": {"accuracy": 0.5, "reward": 0.6, "pass@4": 0.8}}.

        Args:
            weight_version: what the engines have, and get again after a restart.
        Collective: all trainer ranks.
        """
        return {name: self._run_set(name, one, step, weight_version) for name, one in self._due_sets(step).items()}

    def _run_set(self, name: str, source: PromptSource, step: int, weight_version: str) -> dict[str, float]:
        settings = self._config.sampling_of(name)
        request = Request(
            key=f"eval/{name}/{step}",
            prompts=[source.prompt(position) for position in range(len(source))],
            num_samples=settings.n_samples_per_prompt or 1,
            sampling=partial(self._sampling, name, settings, step),
            weight_version=weight_version,
            step=step,
            evaluation=name,
        )
        samples = self._rollout.settle(self._rollout.generate(request))
        rates = evaluation_rates(samples, self._answers_of.get(name) if settings.majority else None)
        if self._keep is not None:
            self._keep(name, step, samples, rates)
        return rates

    def _sampling(self, name: str, settings: EvalSet, step: int, group: int, index: int) -> SamplingParams:
        return SamplingParams(
            max_response_tokens=settings.max_response_tokens or self._rollout_config.max_response_tokens,
            temperature=settings.temperature or 0.0,
            top_p=1.0 if settings.top_p is None else settings.top_p,
            top_k=-1 if settings.top_k is None else settings.top_k,
            stop_token_ids=self._stop_token_ids,
            seed=sample_seed(self._rollout_config.seed, f"eval/{name}", step, group, index),
        )
