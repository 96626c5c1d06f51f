"""The policy gradient through a soft gate in place of a clip: -(4 / t) sigmoid(t (r - 1)) A, t by the sign of A.

Source: SAPO, arXiv:2511.20347, eq. 5 and 6. The gradient at r = 1 is the plain one, and fades with the distance from
there, faster for negative advantages. Nothing is cut off: `train/pg_clipfrac` is 0.
Legend: R response tokens of a micro-batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from common.mistake import Wrong
from core.algorithm.loss import Metrics, TokenInputs
from core.algorithm.policy import MEANS, Penalties, Surrogate, old_of, policy_loss
from core.samples import TrainSample


class SapoLoss:
    """Softly gated surrogate, with a KL to a reference and an entropy bonus."""

    needs_reference = "kl_loss_coef"
    needs_entropy_gradient = "entropy_coef"
    means = MEANS

    def __init__(
        self,
        kl_loss_coef: float,
        kl_loss_type: str,
        kl_unbiased: bool,
        entropy_coef: float,
        tau_positive: float = 1.0,
        tau_negative: float = 1.05,
    ) -> None:
        if not (tau_positive > 0 and tau_negative > 0):
            found = f"tau_positive {tau_positive} and tau_negative {tau_negative}"
            raise Wrong(found, "numbers above 0", "correct algorithm.loss_options")
        self.tau_positive, self.tau_negative = tau_positive, tau_negative
        self.penalties = Penalties(kl_loss_coef, kl_loss_type, kl_unbiased, entropy_coef)

    def teaches(self, sample: TrainSample) -> bool:
        """See `Penalties.teaches`."""
        return self.penalties.teaches(sample)

    def __call__(self, logprobs: Tensor, entropy: Tensor | None, inputs: TokenInputs) -> tuple[Tensor, Metrics]:
        """Loss and metrics of one micro-batch: see `policy_loss`.

        Collective: none.
        """
        ratio = torch.exp(logprobs - old_of(logprobs, inputs))
        tau = torch.where(inputs.advantages > 0, self.tau_positive, self.tau_negative)
        gated = 4 / tau * torch.sigmoid(tau * (ratio - 1))
        surrogate = Surrogate(-gated * inputs.advantages, torch.zeros_like(ratio))
        return policy_loss(surrogate, self.penalties, logprobs, entropy, inputs)
