"""Which address and interface of this node the other nodes reach."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence

import psutil

USELESS = {"127.0.0.1", "127.0.1.1"}  # what a node's own name often means on the node itself


class NetworkError(RuntimeError):
    """This node has no address that the others could use."""


def leader_address(names: Sequence[str], interface: str | None) -> str:
    """Address of the store, seen from the first node.

    Args:
        names: the nodes of the run, this one first.
        interface: the site's choice; None: the address of the node's own name, else the way to the second node.
    Raises:
        NetworkError: no usable address.
    """
    if interface is not None:
        return address_of(interface)
    if len(names) == 1:
        return "127.0.0.1"
    own = _resolve(names[0])
    if own is not None and own not in USELESS:
        return own
    towards = _resolve(names[1])
    if towards is None:
        raise NetworkError(f"node {names[0]} cannot resolve {names[1]}: name a network interface in the site file")
    return address_towards(towards)


def member_address(leader: str, interface: str | None) -> str:
    """This node's address on the way to the leader, or on the site's interface."""
    return address_of(interface) if interface is not None else address_towards(leader)


def address_of(interface: str) -> str:
    """The IPv4 address of a network interface.

    Raises:
        NetworkError: no such interface, or it has no address; names those there are.
    """
    found = _addresses()
    if interface not in found:
        known = ", ".join(f"{name} ({address})" for name, address in found.items())
        raise NetworkError(f"interface {interface!r} of the site file: this node has {known}; name one of these")
    return found[interface]


def address_towards(host: str) -> str:
    """The address that this node uses when it talks to `host`; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((host, 9))
        except OSError as error:
            raise NetworkError(f"no way to {host} from this node: {error.strerror}") from None
        return str(probe.getsockname()[0])


def interface_of(address: str) -> str | None:
    """The interface that has this address, for GLOO_SOCKET_IFNAME; None if none has."""
    return next((name for name, own in _addresses().items() if own == address), None)


def collective_environment(address: str) -> dict[str, str]:
    """What gloo and NCCL must be told, the same in trainer ranks and engines, which broadcast weights to each other.

    SGLang switches NCCL's cuMem allocations off in its processes; a group of which some use them does not connect.
    """
    interface = interface_of(address)
    named = {"GLOO_SOCKET_IFNAME": interface, "NCCL_SOCKET_IFNAME": interface} if interface is not None else {}
    return {**named, "NCCL_CUMEM_ENABLE": os.environ.get("NCCL_CUMEM_ENABLE", "0")}


def reaches(host: str, port: int, timeout_s: float) -> str | None:
    """None if a connection can be made, else why not."""
    try:
        with socket.create_connection((host, port), timeout_s):
            return None
    except OSError as error:
        return str(error)


def _addresses() -> dict[str, str]:
    return {
        name: entry.address
        for name, entries in psutil.net_if_addrs().items()
        for entry in entries
        if entry.family == socket.AF_INET
    }


def _resolve(name: str) -> str | None:
    try:
        return socket.gethostbyname(name)
    except OSError:
        return None
