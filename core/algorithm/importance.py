"""Correction for the gap between the engine that sampled and the trainer that learns: what each token counts.

With g = logp_old - logp_engine, the weight w of a token is: tis, exp(g) held to [low, high]; icepop, exp(g) within the
range and 0 outside; and, with the sum of g over the tokens of a response that count: sequence, held to the range;
mis, 0 outside. The advantage of a token is multiplied by w, which has no gradient. Every built-in policy loss is linear
in a factor of the advantage that is not negative, so it is multiplied by w; KL and entropy stay as they are.
Source: tis: fengyao.notion.site/off-policy-rl; icepop: arXiv:2510.18855; sequence and mis: arXiv:2512.01374; opsm:
DeepSeek-V3.2, arXiv:2512.02556, section 3.1.
Legend: R response tokens of a micro-batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from core.config.sections.algorithm import AlgorithmConfig

if TYPE_CHECKING:
    from core.algorithm.loss import Metrics, TokenInputs

SEQUENCE = ("sequence", "mis")  # one weight per response
MASKED = ("icepop", "mis")  # 0 outside the range
MEANS = frozenset(
    f"train/{name}"
    for name in ("tis", "tis_clipfrac", "tis_weight", "tis_weight_squared", "engine_kl", "opsm_clipfrac")
)
"""Metrics that are means over the tokens computed."""
MOST = 20.0  # a logarithm beyond it is out of every range, and its exponential would leave float32


@dataclass(frozen=True)
class Correction:
    """What the run file's keys `importance…` and `opsm_delta` ask for."""

    importance: str
    low: float
    high: float
    opsm_delta: float | None

    @classmethod
    def of(cls, algorithm: AlgorithmConfig) -> Correction:
        """The correction that a run file asks for."""
        bounds = algorithm.importance_low, algorithm.importance_high
        return cls(algorithm.importance, *bounds, algorithm.opsm_delta)

    def __call__(self, logprobs: Tensor, inputs: TokenInputs) -> tuple[TokenInputs, Metrics]:
        """The inputs with corrected advantages, and what was measured: sums by the weights of the batch."""
        metrics: Metrics = {}
        if self.importance != "none":
            inputs, metrics = self._reweighted(logprobs.detach(), inputs)
        if self.opsm_delta is not None:
            kept = self._kept(logprobs.detach(), inputs, self.opsm_delta)
            metrics["train/opsm_clipfrac"] = ((1 - kept) * inputs.weights).sum()
            inputs = replace(inputs, advantages=inputs.advantages * kept)
        return inputs, metrics

    def _reweighted(self, logprobs: Tensor, inputs: TokenInputs) -> tuple[TokenInputs, Metrics]:
        old = logprobs if inputs.logprobs_old is None else inputs.logprobs_old
        gap = torch.where(inputs.weights > 0, old - inputs.logprobs_engine, 0.0)
        ratio = torch.exp((inputs.sample_sums(gap) if self.importance in SEQUENCE else gap).clamp(-MOST, MOST))
        outside = (ratio < self.low) | (ratio > self.high)
        bounded = ratio.clamp(self.low, self.high)
        weight = torch.where(outside, 0.0, ratio) if self.importance in MASKED else bounded
        measured = {
            "train/tis": ratio,
            "train/tis_clipfrac": outside.to(ratio.dtype),
            "train/tis_weight": weight,
            "train/tis_weight_squared": weight**2,
            "train/engine_kl": torch.expm1(gap.clamp(-MOST, MOST)) - gap,
        }
        sums = {name: (values * inputs.weights).sum() for name, values in measured.items()}
        return replace(inputs, advantages=inputs.advantages * weight), sums

    def _kept(self, logprobs: Tensor, inputs: TokenInputs, delta: float) -> Tensor:
        """[R] 0 where the advantage is negative and the response has become unlikely since it was sampled."""
        drift = inputs.sample_means(inputs.logprobs_engine - logprobs)
        return torch.where((inputs.advantages < 0) & (drift > delta), 0.0, 1.0)


NONE = Correction("none", 0.0, 2.0, None)


def effective_share(metrics: Mapping[str, float]) -> dict[str, float]:
    """The effective sample size of the weights over the number of tokens: (mean w)^2 / mean w^2, in `train/tis_ess`."""
    squared = metrics.get("train/tis_weight_squared")
    return {"train/tis_ess": metrics["train/tis_weight"] ** 2 / squared} if squared else {}
