"""Mathematics under the rules that two well-known recipes find the answer by; what is equal is as for `math`.

Sources: DeepScaleR (the answer is in a box behind the thinking) and DAPO, arXiv:2503.14476 (the answer follows
"Answer:" near the end; 1 or -1). Differs: both compare by rules of their own, text by text.
"""

from __future__ import annotations

import re

from core.reward.answers import after_thinking, boxed
from core.reward.label import golds
from core.reward.math_equality import MathScorer
from core.reward.sample import RewardInput

END_CHARACTERS = 300  # of a response: an answer before them does not count for DAPO
ANSWER = re.compile(r"answer\s*:\s*([^\n]+)", re.IGNORECASE)


class DeepScaleR(MathScorer):
    """1.0 if the thinking has ended and the last box behind it is equal to the label, else 0.0."""

    def __call__(self, sample: RewardInput) -> float:
        _, end, _ = sample.response_text.rpartition("</think>")
        answer = boxed(after_thinking(sample.response_text)) if end else None
        return float(bool(answer) and any(self.equal(gold, answer or "") for gold in golds(sample.label)))


class Dapo(MathScorer):
    """1.0 if what follows the last "Answer:" in the last 300 characters is equal to the label, else -1.0."""

    def __call__(self, sample: RewardInput) -> float:
        found = ANSWER.findall(sample.response_text[-END_CHARACTERS:])
        answer = "" if not found else found[-1].strip()
        answer = boxed(answer) or answer
        return 1.0 if answer and any(self.equal(gold, answer) for gold in golds(sample.label)) else -1.0
