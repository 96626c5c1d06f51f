"""reasoning_gym's own scorers, one per dataset; many give partial credit.

The answer is what stands in the last <answer>...</answer> of the response, or else the whole response, trimmed.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Any

from core.data.gym import gym_dataset
from core.reward.sample import RewardInput

ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
ROW_KEYS = ("dataset", "options", "entry")


def score_reasoning_gym(sample: RewardInput) -> float:
    """The score that the sample's own dataset gives.

    Raises:
        ValueError: the row does not come from a reasoning_gym data source.
    """
    if missing := [key for key in ROW_KEYS if key not in sample.metadata]:
        raise ValueError(
            f"the row has no {', '.join(missing)}; wanted a row made by data.source reasoning_gym, which carries what "
            "its scorer needs: use that source, or another reward.type"
        )
    answers = ANSWER.findall(sample.response_text)
    answer = (answers[-1] if answers else sample.response_text).strip()
    dataset = _dataset(sample.metadata["dataset"], json.dumps(sample.metadata["options"], sort_keys=True, default=str))
    return float(dataset.score_answer(answer, dict(sample.metadata["entry"])))


@lru_cache(maxsize=64)
def _dataset(name: str, options: str) -> Any:
    """The dataset object whose settings the entry was made with; its size does not matter for scoring."""
    return gym_dataset(name, {"size": 1, **json.loads(options)})
