"""The reward of an episode: what its environment gave for the steps, added up."""

from __future__ import annotations

from core.reward.sample import RewardInput


def score_episode(sample: RewardInput) -> float:
    """The sum over all steps; those without a reward count 0.

    Raises:
        ValueError: no step has a reward.
    """
    given = [one for one in sample.metadata.get("episode", {}).get("rewards", ()) if one is not None]
    if not given:
        raise ValueError(
            "found no step with a reward; wanted one at least for reward.type environment: have step of "
            "rollout.environment give one, or choose another reward.type"
        )
    return float(sum(given))
