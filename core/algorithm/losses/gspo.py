"""The clipped policy gradient of whole responses: s = exp(mean over tokens of logp - old), clipped, for all of them.

Source: GSPO, arXiv:2507.18071, eq. 5 and 7; with advantages per token GSPO-token, eq. 13, without its stopped
gradients. Take loss_aggregation sample_mean, as eq. 5 does, and clip ranges of some 3e-4.
Legend: R response tokens of a micro-batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from core.algorithm.clip import Clip
from core.algorithm.loss import Metrics, TokenInputs
from core.algorithm.policy import MEANS, Penalties, Surrogate, old_of, policy_loss
from core.samples import TrainSample


class GspoLoss:
    """Clipped surrogate with one ratio per response, a KL to a reference and an entropy bonus."""

    needs_reference = "kl_loss_coef"
    needs_entropy_gradient = "entropy_coef"
    token_importance = False  # its ratio is that of a response: so is the correction for the engine
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
        ratio = torch.exp(inputs.sample_means(logprobs - old_of(logprobs, inputs)))
        surrogate = Surrogate(*self.clip.surrogate(ratio, inputs.advantages))
        return policy_loss(surrogate, self.penalties, logprobs, entropy, inputs)
