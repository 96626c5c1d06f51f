"""Built-in advantages, one a file."""

from core.algorithm.advantage import Advantages
from core.algorithm.advantages.grpo import group_advantages

__all__ = ["Advantages", "group_advantages"]
