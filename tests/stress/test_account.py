"""The accounts of the long run: what counts as lost, and what as doubled. The run is made by hand: hundred_steps.py."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from tests.stress.account import GROUP, NUM_ROWS, Account, rejected

DRAWN, CARRIED = 50, frozenset({47, 49})
PLACES = [one for one in range(DRAWN) if not rejected(one % NUM_ROWS) and one not in CARRIED]
WHOLE = Account(
    drawn=DRAWN,
    trained=Counter(one % NUM_ROWS for one in PLACES),
    carried=CARRIED,
    seeds=Counter(range(GROUP * len(PLACES))),
    sizes=(GROUP,) * len(PLACES),
)


def test_nothing_is_said_of_a_run_in_which_each_group_came_to_one_end() -> None:
    assert list(WHOLE.violations(len(PLACES))) == []


@pytest.mark.parametrize(
    ("account", "said"),
    [
        (replace(WHOLE, trained=Counter(WHOLE.trained) - Counter([7])), "row 7 was trained 0 times; wanted 1"),
        (replace(WHOLE, trained=Counter(WHOLE.trained) + Counter([1])), "row 1 was trained 3 times; wanted 2"),
        (replace(WHOLE, trained=Counter(WHOLE.trained) + Counter([5])), "row 5 was trained 1 times; wanted 0"),
        (replace(WHOLE, carried=frozenset({47})), "row 9 was trained 1 times; wanted 2"),
        (replace(WHOLE, seeds=Counter([1, 1])), "1 samples were trained twice"),
        (replace(WHOLE, sizes=(GROUP, 1)), "1 groups are not whole: [1]"),
    ],
    ids=["lost", "doubled", "rejected and trained", "lost on the way", "seeds", "half a group"],
)
def test_what_is_lost_or_doubled_is_said(account: Account, said: str) -> None:
    assert said in list(account.violations(sum(account.trained.values())))
