"""A soft penalty on responses that come near the limit of their length.

Source: DAPO, arXiv:2503.14476, eq. 13. Differs: a factor.
"""

from __future__ import annotations

from core.reward.sample import RewardInput


def overlong_penalty(sample: RewardInput, buffer_tokens: int, most: float = 1.0) -> float:
    """What is added to a reward: 0 up to `buffer_tokens` below the limit, then less by the token, -`most` at it.

    In an evaluation it is 0: there the reward says how well the model does.
    """
    if sample.evaluation or not sample.max_response_tokens:
        return 0.0
    too_many = sample.num_response_tokens - (sample.max_response_tokens - buffer_tokens)
    return -most * min(max(too_many / buffer_tokens, 0.0), 1.0)
