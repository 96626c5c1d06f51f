"""Experts of responses that several calls of an engine have made, and those of carried ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from core.rollout.carried import continued
from core.rollout.routed import Routed, gone_on_from, of_common_beginning
from core.samples import FlatRouting, Prompt, Sample, Status


def call(*tokens: int, number: int = 0) -> Routed:
    """A call of which the token at place i goes to the experts i and `number`."""
    return Routed(tokens, np.array([[place, number] for place in range(len(tokens) - 1)], "uint8").reshape(-1, 2))


FIRST, SECOND, OTHER = call(1, 2, 3, number=1), call(1, 2, 3, 8, 4, 5, number=2), call(1, 9, 9, number=3)


@pytest.mark.parametrize(
    ("tokens", "number", "known"),
    [
        ([1, 2, 3, 8, 4, 5], 2, 5),
        ([1, 2, 3, 8, 4, 5, 7, 7], 2, 5),
        ([1, 2, 3, 8, 4], 2, 5),
        ([1, 2, 3, 8, 6, 6], 2, 4),
        ([1, 9, 9, 9], 3, 2),
        ([7, 2, 3], None, 0),
    ],
    ids=["the last call's", "more was heard", "cut off", "said otherwise", "another call's", "nobody's"],
)
def test_what_a_call_knows_is_the_beginning_that_it_shares(tokens: list[int], number: int | None, known: int) -> None:
    found = of_common_beginning(tokens, [FIRST, SECOND, OTHER])
    if number is None:
        assert found is None
    else:
        assert found is not None
        assert found.tolist() == [[place, number] for place in range(known)]


def test_a_call_that_goes_on_knows_more_than_the_one_before_it() -> None:
    assert gone_on_from(FIRST, SECOND)
    assert not gone_on_from(SECOND, FIRST)
    assert not gone_on_from(OTHER, SECOND)
    assert of_common_beginning([1, 2], []) is None


def sample(tokens: Sequence[int], routing: FlatRouting | None) -> Sample:
    prompt = Prompt(0, "p", (1, 2), None)
    return Sample(0, 0, prompt, list(tokens), [0.0] * len(tokens), Status.TRUNCATED, "v", routing=routing)


def test_a_carried_response_has_the_experts_of_those_who_read_all_of_it() -> None:
    begun, whole = np.zeros((3, 4), "uint8"), np.ones((5, 4), "uint8")
    assert continued(sample([3, 4], begun), sample([5, 6], whole)).routing is whole
    assert continued(sample([3, 4], begun), sample([], None)).routing is begun
