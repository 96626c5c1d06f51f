"""The policy gradient weighted by a clipped ratio that has no gradient: -sg(clip(r)) A logp, so every token teaches.

Source: CISPO, MiniMax-M1, arXiv:2506.13585, eq. 4 and 5, where only the upper bound is tuned: eps_clip of 1 or more is
no lower bound. `train/pg_clipfrac` is the share of tokens whose ratio is out of its range.
Legend: R response tokens of a micro-batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from core.algorithm.clip import Clip
from core.algorithm.loss import Metrics, TokenInputs
from core.algorithm.policy import MEANS, Penalties, Surrogate, old_of, policy_loss
from core.samples import TrainSample


class CispoLoss:
    """Policy gradient under clipped importance weights, with a KL to a reference and an entropy bonus."""

    needs_reference = "kl_loss_coef"
    needs_entropy_gradient = "entropy_coef"
    means = MEANS

    def __init__(
        self,
        eps_clip: float,
        eps_clip_high: float | None,
        kl_loss_coef: float,
        kl_loss_type: str,
        kl_unbiased: bool,
        entropy_coef: float,
    ) -> None:
        self.clip = Clip.of(eps_clip, eps_clip_high)
        self.penalties = Penalties(kl_loss_coef, kl_loss_type, kl_unbiased, entropy_coef)

    def teaches(self, sample: TrainSample) -> bool:
        """See `Penalties.teaches`."""
        return self.penalties.teaches(sample)

    def __call__(self, logprobs: Tensor, entropy: Tensor | None, inputs: TokenInputs) -> tuple[Tensor, Metrics]:
        """Loss and metrics of one micro-batch: see `policy_loss`.

        Collective: none.
        """
        ratio = torch.exp(logprobs.detach() - old_of(logprobs, inputs))
        bounded = self.clip.bound(ratio)
        surrogate = Surrogate(-bounded * inputs.advantages * logprobs, bounded != ratio)
        return policy_loss(surrogate, self.penalties, logprobs, entropy, inputs)
