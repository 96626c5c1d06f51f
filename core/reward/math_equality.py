"""Mathematical equality of the response's answer and the label, by math-verify."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from math_verify import parse, verify

from core.reward.sample import RewardInput

NUM_STAGES = 3  # parse the label, parse the response, compare: each has a limit of its own


class MathScorer:
    """1.0 if math-verify finds the answer in the response equal to the label, else 0.0.

    The label is an expression ("7", "x+1", "1/2"), or holds one in $...$ or \\boxed{...}. A response that cannot be
    parsed or compared within the time is wrong, not failed: it is the model's doing.
    """

    def __init__(self, timeout_s: float) -> None:
        """Divide the time limit among the stages.

        Args:
        timeout_s: the sample's time limit; the three stages share it, in whole seconds.
        """
        self._stage_s = max(1, int(timeout_s / NUM_STAGES))
        self._gold = lru_cache(maxsize=1024)(self._parse_label)

    def __call__(self, sample: RewardInput) -> float:
        gold = self._gold(str(sample.label))
        answer = parse(sample.response_text, parsing_timeout=self._stage_s)
        return float(verify(gold, answer, timeout_seconds=self._stage_s))

    def _parse_label(self, label: str) -> Any:
        # bare text is searched for expressions ("2x+1" would be read as 1): say that all of it is the answer
        marked = label if "\\boxed" in label or "$" in label else f"\\boxed{{{label}}}"
        gold = parse(marked, parsing_timeout=self._stage_s)
        if not gold:
            raise ValueError(f"math-verify cannot parse the label {label!r}; wanted a mathematical expression")
        return gold
