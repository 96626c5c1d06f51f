"""Which of a step's groups are trained, where more are drawn than trained: `rollout.filter`.

Every rank has all samples and chooses alike: by their rewards and by the order in which groups were drawn, never by
which were done first. So a repeated step trains the same groups.
Source: dynamic sampling of DAPO, arXiv:2503.14476, section 3.2. Differs: a step draws a fixed number of groups and does
not go on until enough have passed; what is lacking is taken from the rejected ones.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence

from core.algorithm.batch import check_failures
from core.samples import Sample

FAILED = "failed"
ZERO_STD = "zero_std"
REASONS = (ZERO_STD, FAILED)  # of rejection; those rejected for the first are taken first where groups are lacking

log = logging.getLogger(__name__)


class GroupFilter:
    """Keeps a fixed number of groups of each step, and counts the others by reason. Collective: none."""

    def __init__(self, name: str, max_failed_share: float) -> None:
        """Keep what to filter by.

        Args:
        name: `rollout.filter`: none or nonzero_std.
        max_failed_share: of the samples of all groups drawn, that may be without a reward.
        """
        self._name = name
        self._max_failed_share = max_failed_share
        self._counts: dict[str, float] = {}

    def __call__(self, samples: list[Sample], num_groups: int) -> list[Sample]:
        """The samples of the groups to be trained, in the order given.

        Args:
            samples: of all groups drawn, scored, by group.
            num_groups: to be trained.
        Raises:
            TooManyFailures: among all samples drawn; those of rejected groups would not be seen later.
        """
        if self._name == "none":
            return samples
        check_failures(samples, self._max_failed_share)
        reasons = {group: rejection(members) for group, members in by_group(samples).items()}
        chosen = choose(reasons, num_groups)
        self._counts = filter_metrics(reasons, chosen)
        log.info("filter=%s %s", self._name, " ".join(f"{key}={value:.0f}" for key, value in self._counts.items()))
        return [sample for sample in samples if sample.group in chosen]

    def take_counts(self) -> dict[str, float]:
        """Numbers of groups of the step that was filtered last, under their metric names; once."""
        counts, self._counts = self._counts, {}
        return counts


def by_group(samples: Sequence[Sample]) -> dict[int, list[Sample]]:
    """The samples of each group."""
    groups: dict[int, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(sample.group, []).append(sample)
    return groups


def rejection(members: Sequence[Sample]) -> str:
    """Why nothing can be learnt from a group whose rewards are to be compared; empty: there is a difference."""
    rewards = {sample.reward for sample in members if sample.reward is not None}
    if len(rewards) > 1:
        return ""
    return FAILED if any(sample.reward is None for sample in members) else ZERO_STD


def choose(reasons: dict[int, str], num_groups: int) -> set[int]:
    """The groups to be trained: the first that passed, and where they are too few the first rejected ones.

    Args:
        reasons: of each group drawn; empty: it passed.
    """
    ranking = ("", *REASONS)
    ordered = sorted(reasons, key=lambda group: (ranking.index(reasons[group]), group))
    return set(ordered[:num_groups])


def filter_metrics(reasons: dict[int, str], chosen: set[int]) -> dict[str, float]:
    """Numbers of groups: drawn, passed, rejected by reason, rejected but trained, and passed but not needed."""
    counts = Counter(reasons.values())
    return {
        "rollout/filter/drawn": float(len(reasons)),
        "rollout/filter/passed": float(counts[""]),
        **{f"rollout/filter/rejected/{reason}": float(counts[reason]) for reason in REASONS},
        "rollout/filter/rejected_but_trained": float(sum(bool(reasons[group]) for group in chosen)),
        "rollout/filter/surplus": float(sum(not why for group, why in reasons.items() if group not in chosen)),
    }
