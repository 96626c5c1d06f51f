"""Who is gone when all tasks of a job are told to stop: over a real store, in this process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from common.waiting import wait_until
from core.processes import keys
from core.processes.rendezvous import Rendezvous
from launchers.node import last_words, pulse
from launchers.node.last_words import gone_without_a_word
from launchers.node.pulse import Pulse


@pytest.fixture
def agents(store: Rendezvous, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Pulse]]:
    """Three, of which the first leads."""
    monkeypatch.setattr(pulse, "BEAT_S", 0.05)
    monkeypatch.setattr(last_words, "TELLING_S", 1.5)
    monkeypatch.setattr(last_words, "SILENCE_S", 1.0)
    clients = [store, *(Rendezvous(store.address, 1, "key") for _ in range(2))]
    found = [Pulse(client, node, 3, [], 60.0) for node, client in enumerate(clients)]
    for one in found:
        one.start()
    assert wait_until(lambda: len(found[0]._heard) == 2, 60)
    yield found
    for one in found:
        one.stop()


def test_where_all_were_told_nobody_is_gone(store: Rendezvous, agents: list[Pulse]) -> None:
    for node, one in enumerate(agents):
        one.post(keys.told_to_stop(node), "yes")
    agents[1].stop()  # it was told, and is quick to leave
    assert gone_without_a_word(store, agents[0], 3) == []


def test_one_that_says_nothing_and_is_silent_is_gone(store: Rendezvous, agents: list[Pulse]) -> None:
    agents[1].post(keys.told_to_stop(1), "yes")
    agents[2].stop()
    assert gone_without_a_word(store, agents[0], 3) == [2]


def test_one_that_is_not_told_yet_and_beats_is_not_gone(store: Rendezvous, agents: list[Pulse]) -> None:
    assert gone_without_a_word(store, agents[0], 3) == []
