"""What stands in the door `algorithm.advantage_estimator`.

Legend: B samples of a step, T response tokens of a sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor


class Advantages(Protocol):
    """What stands in the door `algorithm.advantage_estimator`: a function, or a class whose objects are called so.

    `min_group_size`, an attribute and a plain number, says how many samples a group needs; left out: 1. The name of
    an option, as a text, says that it is the value of this option, and 2 at least. `per_token`, likewise, True or
    False, says whether it gives a number per token; left out: it may. `needs_values = True` says that there is a
    critic: a parameter `values` then gets what it expects. Parameters of these names get, by name: lengths, [B]
    int64 numbers of response tokens; logprobs_engine, B tensors [T] float32; loss_mask, B tensors [T] float32 of 0
    and 1; kl, B tensors [T] float32: logp_old - logp_ref of the tokens that count, 0 at others and where
    `algorithm.kl_coef` is 0; values, B tensors [T] float32: what the critic expects before each token.
    """

    def __call__(self, rewards: Tensor, groups: Tensor, valid: Tensor) -> Tensor | Sequence[Tensor] | Any:
        """Advantages of a step's samples. Every trainer rank calls with the same arguments and must get the same.

        Args:
            rewards: [B] float32, NaN where there is none.
            groups: [B] int64, the prompt of each sample; the samples of a prompt are adjacent.
            valid: [B] bool: it takes part, so it has a reward, unless the row gave the sample. What comes back for
                others is not read: they get 0.
        Returns:
            [B], or B tensors [T]: one number per response token. Finite. With `needs_values` a pair: B tensors [T] of
            advantages, and B tensors [T] of returns, which the critic is to learn.
        Collective: none.
        """
        ...
