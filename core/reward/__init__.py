"""Scoring of responses: scorers are plain functions, and the pool runs them in processes that may hang or die."""

from core.reward.pool import RewardPool
from core.reward.rewards import Rewards, RewardsUnavailable
from core.reward.sample import RewardInput, Score
from core.reward.scorers import build_scorer

__all__ = ["RewardInput", "RewardPool", "Rewards", "RewardsUnavailable", "Score", "build_scorer"]
