"""What this machine itself shows of its cluster, for a first site file: interfaces, container programs, ports."""

from __future__ import annotations

import fcntl
import shutil
import socket
import struct
from pathlib import Path

from hpc.slurm.commands import SlurmError, run_command

SIOCGIFADDR = 0x8915  # linux/sockios.h: the IPv4 address of an interface
EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")


def network_interfaces() -> dict[str, str]:
    """IPv4 addresses by interface, the loopback left out."""
    found = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(probe.fileno(), SIOCGIFADDR, struct.pack("256s", name.encode()))
            except OSError:
                continue  # no IPv4 address
            found[name] = socket.inet_ntoa(answer[20:24])
    return {name: address for name, address in found.items() if not address.startswith("127.")}


def container_runtimes(timeout_s: float = 30.0) -> list[str]:
    """Which of the runtimes that a site file may name are here; pyxis is an extension of srun."""
    found = [name for name in ("apptainer", "singularity") if shutil.which(name)]
    try:
        pyxis = "--container-image" in run_command(["srun", "--help"], timeout_s)
    except SlurmError:
        pyxis = False
    return [*(["pyxis"] if pyxis else []), *found]


def ephemeral_overlap(ports: range, source: Path = EPHEMERAL) -> range:
    """The part of `ports` from which the kernel also takes ports for outgoing connections; empty is best."""
    try:
        low, high = (int(word) for word in source.read_text().split())
    except (OSError, ValueError):
        return range(0)
    return range(max(ports.start, low), min(ports.stop, high + 1))
