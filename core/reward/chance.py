"""A coin for a reward: to see what a run learns when there is nothing to learn."""

from __future__ import annotations

import zlib

from core.reward.sample import RewardInput


def score_random(sample: RewardInput) -> float:
    """0.0 or 1.0, whatever the label. The same sample of the same step gets the same."""
    told = f"{sample.step}/{sample.group}/{sample.index}/{sample.prompt_text}/{sample.response_text}"
    return float(zlib.crc32(told.encode("utf-8", "replace")) & 1)
