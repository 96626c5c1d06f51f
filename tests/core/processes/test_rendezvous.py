from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from core.processes.rendezvous import Address, Member, Rendezvous, RendezvousForged, RendezvousTimeout
from core.rollout.claims import Claims

SECRET = "the run's key"


@pytest.fixture
def server() -> Rendezvous:
    listener = socket.create_server(("127.0.0.1", 0))
    return Rendezvous(Address(*listener.getsockname()), attempt=1, secret=SECRET, listener=listener)


def member(name: str, incarnation: int = 0) -> Member:
    return Member("engine", name, node=0, host="127.0.0.1", pid=7, url="http://127.0.0.1:9", incarnation=incarnation)


def test_a_member_is_found_by_others_and_replaced_by_its_next_incarnation(server: Rendezvous) -> None:
    other = Rendezvous(server.address, attempt=1, secret=SECRET)
    assert other.lookup("engine", "a") is None
    server.publish(member("a"))
    assert other.lookup("engine", "a") == member("a")
    server.publish(member("a", incarnation=1))
    assert other.lookup("engine", "a") == member("a", incarnation=1)


def test_what_set_wrote_is_there_for_others_when_it_returns(server: Rendezvous) -> None:
    """A TCPStore's own set() returns before: on a busy machine one in seven of these values was missing."""
    other = Rendezvous(server.address, attempt=1, secret=SECRET)
    with busy_processors():
        for step in range(2_000):
            server.set(f"step{step}", "done")
            assert other.get(f"step{step}") == "done"


@contextmanager
def busy_processors() -> Iterator[None]:
    spin = [sys.executable, "-c", "import time\nend = time.monotonic() + 60\nwhile time.monotonic() < end: pass"]
    spinning = [subprocess.Popen(spin) for _ in range(2 * (os.cpu_count() or 1))]
    try:
        yield
    finally:
        for process in spinning:
            process.kill()
            process.wait()


def test_attempts_do_not_see_each_other(server: Rendezvous) -> None:
    server.publish(member("a"))
    assert Rendezvous(server.address, attempt=2, secret=SECRET).lookup("engine", "a") is None


def test_many_values_come_with_one_request(server: Rendezvous) -> None:
    for key in "abc":
        server.set(key, key * 3)
    assert server.get_many(["c", "a"]) == ["ccc", "aaa"]


def test_a_value_that_another_run_wrote_is_refused(server: Rendezvous) -> None:
    stranger = Rendezvous(server.address, attempt=1, secret="a guess")
    stranger.publish(member("a"))
    stranger.store.set("raw", b"\x80\x04\xff no signature")
    for key in ("member/engine/a", "raw"):
        with pytest.raises(RendezvousForged, match=f"{key} in the store at 127.0.0.1:.* was not written by this run"):
            server.get(key)


def test_a_signature_holds_for_its_key_only(server: Rendezvous) -> None:
    server.set("a", "1")
    server.store.set("b", server.store.get("a"))
    with pytest.raises(RendezvousForged):
        server.get("b")


def test_waiting_names_who_is_missing(server: Rendezvous) -> None:
    server.publish(member("a"))
    with pytest.raises(RendezvousTimeout, match=r"1 of 3 engine processes appeared within 0 s; missing: b, c"):
        server.wait("engine", ["a", "b", "c"], deadline_s=0.2)


@pytest.mark.parametrize(("flags", "wanted"), [((False, True, False), True), ((False, False, False), False)])
def test_ranks_without_a_process_group_agree(flags: tuple[bool, ...], wanted: bool, server: Rendezvous) -> None:
    clients = [Rendezvous(server.address, attempt=1, secret=SECRET) for _ in flags]
    with ThreadPoolExecutor(len(flags)) as pool:
        answers = pool.map(
            lambda who: who[0].any_of("offload", who[1], len(flags), 10), zip(clients, flags, strict=True)
        )
        assert list(answers) == [wanted] * len(flags)


def test_a_rank_that_does_not_answer_is_waited_for_no_longer_than_allowed(server: Rendezvous) -> None:
    with pytest.raises(RendezvousTimeout, match="1 of 2 trainer ranks answered offload within 0 s"):
        server.any_of("offload", True, 2, 0.2)


@pytest.mark.parametrize("count", [1, 7])
def test_claims_hand_out_every_group_once_whoever_asks(server: Rendezvous, count: int) -> None:
    got: list[int] = []

    def claim() -> None:
        claims = Claims(Rendezvous(server.address, attempt=1, secret=SECRET), "train/0/0", range(10, 60))
        while groups := claims.next(count):
            got.extend(groups)

    threads = [threading.Thread(target=claim) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(got) == list(range(10, 60))


@pytest.mark.parametrize("text", ["nohost", "host:", ":12", "host:port"])
def test_a_bad_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="wanted host:port"):
        Address.parse(text)
