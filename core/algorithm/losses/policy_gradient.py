"""The plain policy gradient: -A logp per token.

Source: REINFORCE, Williams 1992; as in RLOO, arXiv:2402.14740, eq. 6. No ratio and no clip, so samples of other weights
count as if these had made them: `train/pg_clipfrac` is 0.
Legend: R response tokens of a micro-batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from core.algorithm.loss import Metrics, TokenInputs
from core.algorithm.policy import MEANS, Penalties, Surrogate, policy_loss
from core.samples import TrainSample


class PolicyGradientLoss:
    """Plain policy gradient, with a KL to a reference and an entropy bonus."""

    needs_reference = "kl_loss_coef"
    needs_entropy_gradient = "entropy_coef"
    means = MEANS

    def __init__(self, kl_loss_coef: float, kl_loss_type: str, kl_unbiased: bool, entropy_coef: float) -> None:
        self.penalties = Penalties(kl_loss_coef, kl_loss_type, kl_unbiased, entropy_coef)

    def teaches(self, sample: TrainSample) -> bool:
        """See `Penalties.teaches`."""
        return self.penalties.teaches(sample)

    def __call__(self, logprobs: Tensor, entropy: Tensor | None, inputs: TokenInputs) -> tuple[Tensor, Metrics]:
        """Loss and metrics of one micro-batch: see `policy_loss`.

        Collective: none.
        """
        surrogate = Surrogate(-inputs.advantages * logprobs, torch.zeros_like(logprobs))
        return policy_loss(surrogate, self.penalties, logprobs, entropy, inputs)
