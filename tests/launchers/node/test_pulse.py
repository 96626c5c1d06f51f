"""Agents over a real store, in this process: what they hear of each other, and what they make of silence."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from common import waiting
from core.processes import keys
from core.processes.rendezvous import Rendezvous
from core.run_dir.moment import Moment
from launchers.node import pulse
from launchers.node.pulse import ATTENTION_S, Pulse, Silence
from tests.support.waiting import DEADLINE_S, wait_until


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulse, "BEAT_S", 0.05)


@pytest.fixture
def agents(store: Rendezvous) -> Iterator[list[Pulse]]:
    clients = [store, *(Rendezvous(store.address, 1, "key") for _ in range(2))]
    found = [Pulse(client, node, 3, [keys.ENDED], 0.5) for node, client in enumerate(clients)]
    for one in found:
        one.start()
    yield found
    for one in found:
        one.stop()


def test_what_one_posts_the_others_hear(agents: list[Pulse]) -> None:
    agents[2].post(keys.ENDED, "first")
    agents[2].post(keys.ENDED, "last")
    wait_until(lambda: agents[0].value(keys.ENDED) == agents[1].value(keys.ENDED) == "last", "both have heard the last")


def test_the_leader_learns_at_once_what_the_run_is_doing(store: Rendezvous) -> None:
    leader = Pulse(store, 0, 2, [], 0.5)  # it does not beat
    store.set(keys.PHASE, Moment("update", 1).to_json())
    assert leader.moment == Moment()
    leader.look_again()
    assert leader.moment == Moment("update", 1)


def test_counts_add_up(store: Rendezvous, agents: list[Pulse]) -> None:
    for one in agents:
        one.count(keys.LEFT)
    wait_until(lambda: store.add(keys.LEFT, 0) == 3, "all three are counted")


def test_the_leader_misses_a_node_that_falls_silent_and_no_other(agents: list[Pulse]) -> None:
    wait_until(lambda: len(agents[0]._heard) == 2 and agents[0].lost_nodes() == [], "the leader hears both")
    agents[1].stop()
    wait_until(lambda: agents[0].lost_nodes() == [1], "the leader misses node 1 alone")


def test_a_node_that_has_never_spoken_is_not_lost_but_not_there_yet(store: Rendezvous) -> None:
    alone = Pulse(store, 0, 2, [], 0.5)
    alone.start()
    assert not waiting.wait_until(lambda: bool(alone.lost_nodes()), 1.0)
    alone.stop()


def test_the_others_miss_a_store_that_does_not_answer(
    store: Rendezvous, agents: list[Pulse], monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object) -> None:
        raise RuntimeError("connection refused")

    wait_until(lambda: not agents[1].leader_lost(), "the store answers")
    monkeypatch.setattr(agents[1]._rendezvous, "set", gone)
    wait_until(agents[1].leader_lost, "the store is missed")
    monkeypatch.undo()
    wait_until(lambda: not agents[1].leader_lost(), "the store answers again")


def test_the_last_word_is_sent_before_it_stops(store: Rendezvous, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulse, "BEAT_S", DEADLINE_S)  # so no beat sends it: the stop does, which waits for some beats
    one = Pulse(store, 0, 1, [], 0.5)
    one.start()
    one.post(keys.ENDED, "well")
    one.stop()
    assert store.get(keys.ENDED) == "well"


def test_silence_counts_while_somebody_listens(caplog: pytest.LogCaptureFixture) -> None:
    """Who was stopped for a minute has missed nobody in it, and says so."""
    now = [0.0]
    silence = Silence(lambda: now[0])
    for second in range(1, 11):
        now[0] = float(second)
        assert silence.listen() == second
    assert caplog.records == []
    now[0] += 60.0
    with caplog.at_level(logging.WARNING):
        assert silence.listen() == 10.0 + ATTENTION_S
    assert "was away for 60 s" in caplog.text
    silence.broken()
    now[0] += 1.0
    assert silence.listen() == 1.0


def test_a_leader_that_was_away_misses_nobody(store: Rendezvous) -> None:
    """It hears nothing new at the first beat after it: what was said meanwhile is still under way."""
    now = [0.0]
    leader = Pulse(store, 0, 2, [], 30.0, lambda: now[0])
    other = Pulse(Rendezvous(store.address, 1, "key"), 1, 2, [], 30.0)
    other._once()
    leader._once()
    now[0] += 600.0
    leader._once()
    assert leader.lost_nodes() == []
    for _ in range(16):
        now[0] += 2.0
        leader._once()
    assert leader.lost_nodes() == [1]


def test_a_node_that_was_away_does_not_miss_the_leader(store: Rendezvous) -> None:
    now = [0.0]
    one = Pulse(store, 1, 2, [], 30.0, lambda: now[0])
    one._once()
    assert not one.leader_lost()
    now[0] += 600.0
    assert not one.leader_lost()
    for _ in range(16):
        now[0] += 2.0
        lost = one.leader_lost()
    assert lost
