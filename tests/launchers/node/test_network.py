from __future__ import annotations

import socket

import pytest

from launchers.node import network
from launchers.node.network import (
    NetworkError,
    address_of,
    collective_environment,
    interface_of,
    leader_address,
    member_address,
    reaches,
)


def test_one_node_stays_on_its_loopback() -> None:
    assert leader_address(["anything"], None) == "127.0.0.1"


def test_the_sites_interface_decides() -> None:
    assert leader_address(["a", "b"], "lo") == member_address("10.0.0.1", "lo") == "127.0.0.1"
    assert interface_of("127.0.0.1") == "lo"
    with pytest.raises(NetworkError, match=r"interface 'ib7' of the site file: this node has .*lo \(127.0.0.1\)"):
        address_of("ib7")


def test_trainers_and_engines_are_told_the_same_about_collectives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NCCL_CUMEM_ENABLE", raising=False)
    told = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo", "NCCL_CUMEM_ENABLE": "0"}
    assert collective_environment("127.0.0.1") == told
    monkeypatch.setenv("NCCL_CUMEM_ENABLE", "1")  # whoever knows better
    assert collective_environment("203.0.113.9") == {"NCCL_CUMEM_ENABLE": "1"}


@pytest.mark.parametrize(
    ("names", "expected"),
    [({"a": "10.1.2.3", "b": "10.1.2.4"}, "10.1.2.3"), ({"a": "127.0.1.1", "b": "127.5.5.5"}, "127.0.0.1")],
    ids=["the address of its own name", "the way to the second node, where the own name means the loopback"],
)
def test_the_leader_chooses_an_address_that_others_reach(
    names: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "_resolve", names.get)
    assert leader_address(["a", "b"], None) == expected


def test_names_that_nobody_knows_are_an_error_with_a_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "_resolve", lambda name: None)
    with pytest.raises(NetworkError, match="node a cannot resolve b: name a network interface in the site file"):
        leader_address(["a", "b"], None)


def test_what_cannot_be_reached_says_why() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert reaches("127.0.0.1", port, 5) is None
    assert "refused" in (reaches("127.0.0.1", port, 5) or "")
