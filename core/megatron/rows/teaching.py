"""Which samples of a global batch are computed: those without a gradient are not.

A sample whose advantage is 0 (its whole group got one reward), or whose tokens are all masked, adds nothing to the
policy gradient. The others' weights stay as if it were there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from core.config.schema import AlgorithmConfig
from core.samples import TrainSample

MEANS = ("train/ppo_kl", "train/entropy_loss", "train/train_rollout_logprob_abs_diff")  # of tokens, advantage or not


def teaching(samples: Sequence[TrainSample], algorithm: AlgorithmConfig) -> list[int]:
    """Places of the samples to compute: all, if KL or entropy are in the loss; else those that have a gradient.

    Where none has, the first group: so every step has its metrics.
    """
    everything = range(len(samples))
    if algorithm.kl_loss_coef > 0 or algorithm.entropy_coef > 0:
        return list(everything)
    found = [place for place in everything if samples[place].advantage != 0 and any(samples[place].loss_mask)]
    return found or [place for place in everything if samples[place].group == samples[0].group]


def means_of_computed(metrics: Mapping[str, float], weights: Tensor, computed: Tensor) -> dict[str, float]:
    """The metrics that are means over tokens, as means over the tokens that were computed.

    Args:
        metrics: sums over those, by the weights that all tokens have.
        weights: [N] of all tokens.
        computed: [N] bool.
    """
    share = float(weights[computed].sum() / weights.sum()) if float(weights[computed].sum()) else 1.0
    return {name: metrics[name] / share for name in MEANS if name in metrics}
