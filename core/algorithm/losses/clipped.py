"""The clipped policy gradient: max(-r A, -clip(r, 1 - eps_clip, 1 + eps_clip_high) A) per token, r = exp(logp - old).

Source: PPO, arXiv:1707.06347, eq. 7. With eps_clip_high: DAPO, arXiv:2503.14476; with eps_clip_c: min(that, -c A) where
A < 0, arXiv:1912.09729.
Legend: R response tokens of a micro-batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from core.algorithm.clip import Clip
from core.algorithm.loss import Metrics, TokenInputs
from core.algorithm.policy import MEANS, Penalties, Surrogate, old_of, policy_loss
from core.samples import TrainSample


class ClippedLoss:
    """Clipped surrogate, with a KL to a reference and an entropy bonus."""

    needs_reference = "kl_loss_coef"
    needs_entropy_gradient = "entropy_coef"
    means = MEANS

    def __init__(
        self,
        eps_clip: float,
        eps_clip_high: float | None,
        eps_clip_c: float | None,
        kl_loss_coef: float,
        kl_loss_type: str,
        kl_unbiased: bool,
        entropy_coef: float,
    ) -> None:
        self.clip = Clip.of(eps_clip, eps_clip_high, eps_clip_c)
        self.penalties = Penalties(kl_loss_coef, kl_loss_type, kl_unbiased, entropy_coef)

    def teaches(self, sample: TrainSample) -> bool:
        """See `Penalties.teaches`."""
        return self.penalties.teaches(sample)

    def __call__(self, logprobs: Tensor, entropy: Tensor | None, inputs: TokenInputs) -> tuple[Tensor, Metrics]:
        """Loss and metrics of one micro-batch: see `policy_loss`.

        Collective: none.
        """
        ratio = torch.exp(logprobs - old_of(logprobs, inputs))
        surrogate = Surrogate(*self.clip.surrogate(ratio, inputs.advantages))
        return policy_loss(surrogate, self.penalties, logprobs, entropy, inputs)
