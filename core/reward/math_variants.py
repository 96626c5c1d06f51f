"""Mathematics under the rules that two well-known recipes find the answer by; what is equal is as for `math`.

Sources: DeepScaleR (the answer is in a box behind the thinking) and DAPO, arXiv:2503.14476 (the answer follows
"Answer:" near the end; 1 or -1). Differs: both compare by rules of their own, text by text.
"""

from __future__ import annotations

from core.reward.answers import behind_answer, boxed_after_thinking
from core.reward.label import golds
from core.reward.math_equality import MathScorer
from core.reward.sample import RewardInput


class DeepScaleR(MathScorer):
    """1.0 if the thinking has ended and the last box behind it is equal to the label, else 0.0."""

    def __call__(self, sample: RewardInput) -> float:
        answer = boxed_after_thinking(sample.response_text)
        return float(bool(answer) and any(self.equal(gold, answer or "") for gold in golds(sample.label)))


class Dapo(MathScorer):
    """1.0 if what follows the last "Answer:" in the last 300 characters is equal to the label, else -1.0."""

    def __call__(self, sample: RewardInput) -> float:
        answer = behind_answer(sample.response_text)
        return 1.0 if answer and any(self.equal(gold, answer) for gold in golds(sample.label)) else -1.0
