"""Supervised fine-tuning: the cross-entropy -logp of each token that counts, whatever its advantage.

Source: maximum likelihood; the mean over the tokens of a batch is what transformers calls the loss of a causal language
model whose other labels are -100.
Legend: R response tokens of a micro-batch.
"""

from __future__ import annotations

from torch import Tensor

from core.algorithm.loss import Metrics, TokenInputs
from core.samples import TrainSample


class SftLoss:
    """Cross-entropy of the tokens that the loss mask counts."""

    means = frozenset({"train/entropy_loss"})
    needs_reward = False
    reads_advantages = False

    def teaches(self, sample: TrainSample) -> bool:
        """Whether a token of it counts."""
        return any(sample.loss_mask)

    def __call__(self, logprobs: Tensor, entropy: Tensor | None, inputs: TokenInputs) -> tuple[Tensor, Metrics]:
        """Loss and metrics of one micro-batch: see `core.algorithm.loss.Loss`.

        Collective: none.
        """
        loss = -(logprobs * inputs.weights).sum()
        return loss, {} if entropy is None else {"train/entropy_loss": (entropy.detach() * inputs.weights).sum()}
