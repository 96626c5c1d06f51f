"""The loss of one micro-batch, as a plain sum that adds up over micro-batches and data-parallel ranks.

Legend: R response tokens of a micro-batch, B samples of the global batch that an optimiser step learns from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from common.mistake import Wrong
from core.algorithm import importance
from core.config.sections.algorithm import AlgorithmConfig
from core.doors import LOSS
from core.plugins import where
from core.samples import TrainSample

Metrics = dict[str, Tensor]


@dataclass(frozen=True)
class TokenInputs:
    """What the loss needs beside the policy's own log-probs; tensors are [R], float32 where nothing else is said.

    `weights` is the loss mask over the global batch's denominator: a weighted sum over all tokens of the batch is a
    mean; it is 0 where a token does not count. `logprobs_old=None` means on-policy: the policy's own log-probs,
    detached. `sample_index`, int64, says which of the `num_samples` (B) samples of the global batch a token belongs
    to. All response tokens of a sample are in the same micro-batch, in order: sums over a sample are complete.
    """

    weights: Tensor
    advantages: Tensor
    logprobs_engine: Tensor
    sample_index: Tensor
    num_samples: int
    logprobs_old: Tensor | None = None
    logprobs_ref: Tensor | None = None

    def sums(self, values: Tensor) -> Tensor:
        """[B] sums over the tokens of each sample of [R] values; 0 for samples of other micro-batches."""
        return values.new_zeros(self.num_samples).index_add(0, self.sample_index, values)

    def sample_sums(self, values: Tensor) -> Tensor:
        """[R] of [R] values: at each token the sum over the tokens of its sample that count."""
        counted = torch.where(self.weights > 0, values, torch.zeros_like(values))
        return self.sums(counted)[self.sample_index]

    def sample_means(self, values: Tensor) -> Tensor:
        """[R] of [R] values: at each token the mean over the tokens of its sample that count; 0 where none does."""
        return self.sample_sums(values) / self.sample_sums(torch.ones_like(values)).clamp(min=1)


class Loss(Protocol):
    """What stands in the door `algorithm.loss`: a function with the signature of `__call__`, or a class.

    Attributes that it may have, plain constants in its text:
        needs_reference: whether `logprobs_ref` is there: True, False (where left out), or the name of the option or key
            of `algorithm` by which it is asked for, by a value that is not 0.
        needs_entropy_gradient: whether the loss depends on the entropy, likewise.
        token_importance: False: `algorithm.importance` is refused where it weighs single tokens. Left out: it is not.
        reads_advantages: False, or the name of an option that may be 0: advantages do not count. Left out: they do.
        means: names of the metrics that are means over tokens by `weights`; they are taken over the tokens computed.
    A method that it may have:
        teaches(sample: TrainSample) -> bool: False: nothing of the sample has a gradient, so it is not computed. Left
            out: all samples are computed.
    """

    def __call__(self, logprobs: Tensor, entropy: Tensor, inputs: TokenInputs) -> tuple[Tensor, Metrics]:
        """Loss and metrics of one micro-batch. R may be 0: then both are 0.

        Args:
            logprobs: [R] float32 log-probs of the response tokens under the policy, with gradient.
            entropy: [R] float32 entropy of each predicted distribution; with gradient if that is needed.
            inputs: the other per-token quantities.
        Returns:
            scalar loss with gradient, and scalar metrics: sums that add up over micro-batches and ranks, except names
            ending in `_max`, of which the maximum is taken. Reading a value on the host makes the GPU wait.
        Collective: none, and it may call none: ranks have different micro-batches.
        """
        ...


@dataclass(frozen=True)
class LossInUse:
    """A loss, with what it leaves out filled in, and what it gives held to what it must be."""

    function: Callable[..., Any]
    means: frozenset[str]
    correction: importance.Correction = importance.NONE

    def teaches(self, sample: TrainSample) -> bool:
        """Whether the sample is computed."""
        asked = getattr(self.function, "teaches", None)
        return True if asked is None else bool(asked(sample))

    def __call__(self, logprobs: Tensor, entropy: Tensor, inputs: TokenInputs) -> tuple[Tensor, Metrics]:
        """See `Loss`.

        Raises:
            Wrong: it gave something else.
        """
        inputs, measured = self.correction(logprobs, inputs)
        given = self.function(logprobs, entropy, inputs)
        found = _misfit(given, logprobs)
        if found:
            wanted = "(loss, metrics): a scalar tensor with a gradient, and a dict of scalar tensors"
            raise Wrong(f"{found} from {where(self.function)}", wanted, f"correct {LOSS.key}")
        loss, metrics = given
        return loss, {"train/loss": loss.detach(), **measured, **metrics}


def build_loss(algorithm: AlgorithmConfig) -> LossInUse:
    """The run's loss, built-in or a user's.

    Raises:
        Wrong: it cannot be loaded, does not fit the door, or its `means` are no names.
    """
    function = LOSS.build(algorithm.loss, algorithm.loss_options, algorithm.model_dump())
    means = getattr(function, "means", ())
    if isinstance(means, str) or not all(isinstance(name, str) for name in means):
        raise Wrong(f"means {means!r} of {where(function)}", "names of metrics", 'write them as ("train/mine",)')
    return LossInUse(function, frozenset(means) | importance.MEANS, importance.Correction.of(algorithm))


def _misfit(given: Any, logprobs: Tensor) -> str:
    """What is wrong with a loss's answer, as a noun phrase; empty: nothing. Reads shapes, waits for no value."""
    if not isinstance(given, tuple) or len(given) != 2:
        return f"a {type(given).__name__}"
    loss, metrics = given
    if not isinstance(loss, Tensor) or loss.shape:
        return f"a loss {list(loss.shape)}" if isinstance(loss, Tensor) else f"a {type(loss).__name__} as loss"
    if logprobs.requires_grad and not loss.requires_grad:
        return "a loss without a gradient"
    if not isinstance(metrics, Mapping):
        return f"a {type(metrics).__name__} as metrics"
    for name, value in metrics.items():
        if not isinstance(name, str) or not isinstance(value, Tensor) or value.numel() != 1:
            kind = f"a tensor {list(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
            return f"{kind} as metric {name!r}"
    return ""
