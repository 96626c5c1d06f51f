"""Agent and driver over a real store: an engine is never started while the trainer has its GPU."""

from __future__ import annotations

from collections.abc import Callable, Collection

import pytest

import core.engines.roster
from core.engines.roster import Engines
from core.engines.starts import Start, last_start, try_to_start
from core.processes import keys
from core.processes.rendezvous import Member, Rendezvous
from core.residency.engines import EngineOwner
from core.residency.table import ENGINE_PARTS
from core.sglang.errors import EngineDied

NAME = "node0-engine0"


class Client:
    """Stands in for an engine's client: an engine is up at once, or `broken` and never."""

    broken: bool = False
    on_wait: Callable[[], object] = staticmethod(lambda: None)

    def __init__(self, *_: object, **__: object) -> None:
        self.resident = set(ENGINE_PARTS)

    def wait_healthy(self, deadline_s: float, alive: Callable[[], bool]) -> None:
        self.on_wait()
        if self.broken:
            raise EngineDied("it is not up")

    def resident_memory(self) -> frozenset[str]:
        return frozenset(self.resident)

    def release_memory(self, parts: Collection[str]) -> None:
        self.resident -= set(parts)

    def resume_memory(self, parts: Collection[str]) -> None:
        self.resident |= set(parts)


@pytest.fixture
def engines(store: Rendezvous, monkeypatch: pytest.MonkeyPatch) -> Engines:
    """The driver's view of one engine that is up."""
    monkeypatch.setattr(core.engines.roster, "EngineClient", type("OneClient", (Client,), {}))
    publish(store, 0)
    found = Engines(store, [NAME], vocab_size=9, api_key="", start_s=1.0, request_s=1.0)
    found.start()
    return found


def publish(store: Rendezvous, incarnation: int) -> None:
    store.publish(Member("engine", NAME, 0, "127.0.0.1", 7, "http://127.0.0.1:9", (), incarnation))


def client_class() -> type[Client]:
    return core.engines.roster.EngineClient  # type: ignore[return-value]


def test_it_may_start_unless_the_trainer_has_the_gpu(store: Rendezvous, engines: Engines) -> None:
    owner = EngineOwner(engines, [NAME])
    assert try_to_start(store, NAME, 1)
    publish(store, 1)
    for parts, may_start in (((), False), (("weights",), False), (ENGINE_PARTS, True), (("weights",), True)):
        owner.shrink_to(frozenset(parts))
        owner.grow_to(frozenset(parts))
        assert try_to_start(store, NAME, 2) == may_start, parts


def test_others_engines_are_left_alone(store: Rendezvous, engines: Engines) -> None:
    EngineOwner(engines, ["node0-engine1"]).shrink_to(frozenset())
    assert try_to_start(store, NAME, 1)


def test_a_living_engine_is_not_waited_for(engines: Engines) -> None:
    engines.forbid_starts([NAME])
    assert [engine.member.incarnation for engine in engines.alive()] == [0]


@pytest.mark.parametrize("noticed", [True, False])
def test_one_that_is_starting_is_waited_for_and_taken_over(noticed: bool, store: Rendezvous, engines: Engines) -> None:
    if noticed:
        engines.mark_dead(engines.alive()[0], EngineDied("no answer"))
    assert try_to_start(store, NAME, 1)
    publish(store, 1)
    EngineOwner(engines, [NAME]).shrink_to(frozenset())
    (engine,) = engines.alive()
    assert (engine.member.incarnation, engine.weight_version, engine.client.resident_memory()) == (1, None, frozenset())


def test_one_that_hangs_while_it_starts_is_an_error(store: Rendezvous, engines: Engines) -> None:
    assert try_to_start(store, NAME, 1)
    publish(store, 1)
    client_class().broken = True
    with pytest.raises(EngineDied, match="it is not up"):
        engines.forbid_starts([NAME])


def test_one_that_dies_again_while_it_starts_is_held_back(store: Rendezvous, engines: Engines) -> None:
    assert try_to_start(store, NAME, 1)
    publish(store, 1)
    client_class().broken = True
    client_class().on_wait = staticmethod(lambda: try_to_start(store, NAME, 2))
    engines.forbid_starts([NAME])
    assert engines.alive() == []
    assert last_start(store, NAME) == Start(2, held=True)


def test_one_that_is_given_up_is_waited_for_until_it_has_ended(store: Rendezvous, engines: Engines) -> None:
    engines.mark_dead(engines.alive()[0], EngineDied("no answer"))
    with pytest.raises(EngineDied, match="node0-engine0 neither ended nor was restarted within 1 s"):
        engines.forbid_starts([NAME])
    assert not try_to_start(store, NAME, 1)
    engines.forbid_starts([NAME])


def test_a_death_that_nobody_noticed_is_learnt_of(store: Rendezvous, engines: Engines) -> None:
    engines.forbid_starts([NAME])
    assert not try_to_start(store, NAME, 1)
    engines.allow_starts()
    engines.forbid_starts([NAME])
    assert engines.alive() == []


def test_a_restart_that_fails_is_replaced_by_the_next(store: Rendezvous, engines: Engines) -> None:
    """The agent has restarts left, and there is time."""

    def up_at_the_second_try() -> None:
        client_class().broken = not client_class().broken
        if client_class().broken:
            publish(store, 2)

    client_class().on_wait = staticmethod(up_at_the_second_try)
    engines.mark_dead(engines.alive()[0], EngineDied("no answer"))
    publish(store, 1)
    engines.await_restarted()
    assert [engine.member.incarnation for engine in engines.alive()] == [2]
    assert store.get(keys.server_condemned(NAME)) == "1"


def test_restarts_that_all_fail_are_an_error_at_the_deadline(store: Rendezvous, engines: Engines) -> None:
    client_class().broken = True
    engines.mark_dead(engines.alive()[0], EngineDied("no answer"))
    publish(store, 1)
    with pytest.raises(EngineDied, match="it is not up"):
        engines.await_restarted()


def test_what_is_forbidden_while_it_is_asked_for_is_held_back(
    store: Rendezvous, engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver has looked before the agent spoke: then the agent sees that starts are forbidden."""
    said, say = [], store.set

    def forbid_first(key: str, value: str) -> None:
        if not said:
            said.append(value)
            engines.forbid_starts([NAME])
        say(key, value)

    monkeypatch.setattr(store, "set", forbid_first)
    assert not try_to_start(store, NAME, 1)
    assert said == ["1 wanted"]
    assert last_start(store, NAME) == Start(1, held=True)
