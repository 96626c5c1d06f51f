"""Groups handed out in order, each once, round by round."""

from __future__ import annotations

from core.processes.rendezvous import Rendezvous
from core.rollout.claims import Claims


def test_groups_come_in_order_and_the_last_claim_gets_what_is_left(store: Rendezvous) -> None:
    claims = Claims(store, "train/0/0", [3, 5, 8, 9, 11])
    assert [claims.next(2) for _ in range(4)] == [[3, 5], [8, 9], [11], []]


def test_drivers_claim_from_one_counter_whatever_number_each_asks_for(store: Rendezvous) -> None:
    ours, theirs = (Claims(store, "train/0/0", range(6)) for _ in range(2))
    assert [ours.next(), theirs.next(3), ours.next(), theirs.next(3), ours.next()] == [[0], [1, 2, 3], [4], [5], []]


def test_each_round_is_handed_out_anew(store: Rendezvous) -> None:
    first, second = (Claims(store, f"train/0/{number}", [1, 2]) for number in range(2))
    assert first.next(2) == second.next(2) == [1, 2]
