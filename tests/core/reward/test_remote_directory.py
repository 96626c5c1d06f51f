from __future__ import annotations

import socket
from dataclasses import replace

from core.processes import keys
from core.processes.rendezvous import Address, Member, Rendezvous
from core.reward.remote_directory import RewardDirectory


def test_the_latest_incarnations_are_found_and_what_is_said_of_them_is_for_their_agents() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    rendezvous = Rendezvous(Address(*listener.getsockname()), attempt=1, secret="key", listener=listener)
    directory = RewardDirectory(rendezvous, ["node1", "node2"])
    assert directory.published() == []
    first = Member("rewards", "node2", 2, "127.0.0.1", 7, "http://127.0.0.1:9")
    rendezvous.publish(first)
    rendezvous.publish(replace(first, role="engine", name="node1"))
    assert directory.published() == [first]
    second = replace(first, incarnation=1)
    rendezvous.publish(second)
    assert directory.published() == [second]
    directory.answered(first)
    directory.condemn(second)
    assert rendezvous.get(keys.server_ready("node2")) == "0"
    assert rendezvous.get(keys.server_condemned("node2")) == "1"
