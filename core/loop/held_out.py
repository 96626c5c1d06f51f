"""Evaluation of a run without engines: the loss of rows that are not learnt, as the trainer computes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from core.config.sections.eval import EvalConfig
from core.config.sections.rollout import RolloutConfig
from core.data import PromptSource
from core.loop.evaluation import EvaluationSets
from core.rollout.request import Request
from core.rollout.rows import RowRollout
from core.samples import Sample, SamplingParams, TrainSample


class LogProbs(Protocol):
    """Who has the model: the trainer."""

    def log_probs(self, samples: list[TrainSample]) -> list[list[float]]:
        """Log-probs of the response tokens, one list per sample, on every rank. Collective: all trainer ranks."""
        ...


class HeldOutLoss(EvaluationSets):
    """The mean of -log p over the tokens of a set that would be learnt."""

    def __init__(
        self,
        config: EvalConfig,
        rollout_config: RolloutConfig,
        sources: Mapping[str, PromptSource],
        trainer: LogProbs,
    ) -> None:
        super().__init__(config, rollout_config, sources)
        self._trainer = trainer
        self._rows = RowRollout()

    def run(self, step: int, _weight_version: str) -> dict[str, dict[str, float]]:
        """Losses of every set that is due: {"set": {"loss": 1.2}}. Collective: all trainer ranks."""
        return {name: {"loss": self._loss(name, source)} for name, source in self._due_sets(step).items()}

    def _loss(self, name: str, source: PromptSource) -> float:
        prompts = [source.prompt(position) for position in range(len(source))]
        request = Request(f"eval/{name}", prompts, 1, lambda _group, _index: SamplingParams(1), "")
        samples = self._rows.settle(self._rows.generate(request))
        logprobs = self._trainer.log_probs([_train_sample(sample) for sample in samples])
        total = sum(
            value
            for sample, values in zip(samples, logprobs, strict=True)
            for value, counts in zip(values, sample.loss_mask, strict=True)
            if counts
        )
        return -total / sum(sum(sample.loss_mask) for sample in samples)


def _train_sample(sample: Sample) -> TrainSample:
    return TrainSample(
        group=sample.group,
        prompt_tokens=sample.prompt.tokens,
        response_tokens=sample.response_tokens,
        loss_mask=sample.loss_mask,
        advantage=1.0,
        logprobs_engine=sample.logprobs_engine,
    )
