"""Which samples of a global batch are computed: those of which nothing has a gradient are not.

What has one, the loss knows. The others' weights stay as if the rest were there.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from torch import Tensor

from core.samples import TrainSample


def with_gradient(samples: Sequence[TrainSample], teaches: Callable[[TrainSample], bool]) -> list[int]:
    """Places of the samples to compute. Where none has a gradient, the first group: so every step has its metrics."""
    found = [place for place, sample in enumerate(samples) if teaches(sample)]
    return found or [place for place, sample in enumerate(samples) if sample.group == samples[0].group]


def means_of_computed(
    metrics: Mapping[str, float], means: Collection[str], weights: Tensor, computed: Tensor
) -> dict[str, float]:
    """The metrics that are means over tokens, as means over the tokens that were computed.

    Args:
        metrics: sums over those, by the weights that all tokens have.
        means: their names; others are left as they are.
        weights: [N] of all tokens.
        computed: [N] bool.
    """
    share = float(weights[computed].sum() / weights.sum()) if float(weights[computed].sum()) else 1.0
    return {name: metrics[name] / share for name in means if name in metrics}
