"""On-policy distillation: the policy's own responses, each token weighed by what a teacher thinks of it.

The advantage of a token is -coef (logp_old - logp_teacher), plus advantage_weight times that of the rewards. So the
mean gradient is that of the reverse KL of each token's distribution to the teacher's. It is clipped as a policy loss.
The teacher is the reference model, `model.reference_path`: of the policy's shape, and scored as for a KL.
Source: arXiv:2306.13649 (GKD, with the reverse KL and all samples on-policy); Thinking Machines, On-Policy
Distillation, 2025. Differs: the KL is that of the tokens sampled, and no future token counts.
Legend: R response tokens of a micro-batch.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from common.mistake import Wrong
from core.algorithm.clip import Clip
from core.algorithm.loss import Metrics, TokenInputs
from core.algorithm.policy import MEANS, Penalties, Surrogate, old_of, policy_loss
from core.samples import TrainSample


class DistillationLoss:
    """Clipped surrogate of the teacher's verdict on each token."""

    needs_reference = True
    needs_entropy_gradient = "entropy_coef"
    reads_advantages = "advantage_weight"
    takes_importance = False  # which weighs the advantages of the rewards, and these are not all of it
    means = MEANS | {"train/opd_reverse_kl"}

    def __init__(
        self,
        eps_clip: float,
        eps_clip_high: float | None,
        eps_clip_c: float | None,
        entropy_coef: float,
        coef: float = 1.0,
        advantage_weight: float = 0.0,
    ) -> None:
        if not coef > 0:
            raise Wrong(f"coef {coef!r}", "a number above 0", "correct algorithm.loss_options")
        self.clip = Clip.of(eps_clip, eps_clip_high, eps_clip_c)
        self.penalties = Penalties(0.0, "k1", False, entropy_coef)
        self.coef, self.advantage_weight = coef, advantage_weight

    def teaches(self, sample: TrainSample) -> bool:
        """Whether a token of it counts."""
        return any(sample.loss_mask)

    def __call__(self, logprobs: Tensor, entropy: Tensor | None, inputs: TokenInputs) -> tuple[Tensor, Metrics]:
        """Loss and metrics of one micro-batch: see `policy_loss`.

        Collective: none.
        """
        old = old_of(logprobs, inputs)
        assert inputs.logprobs_ref is not None  # as needs_reference says
        gap = old - inputs.logprobs_ref
        advantages = self.advantage_weight * inputs.advantages - self.coef * gap
        surrogate = Surrogate(*self.clip.surrogate(torch.exp(logprobs - old), advantages))
        inputs = replace(inputs, logprobs_ref=None)  # there is no KL beside it
        loss, metrics = policy_loss(surrogate, self.penalties, logprobs, entropy, inputs)
        return loss, {**metrics, "train/opd_reverse_kl": (gap * inputs.weights).sum()}
