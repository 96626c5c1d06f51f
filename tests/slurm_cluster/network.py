"""The cluster's network: a bridge in a network namespace of its own, a cable to this machine and one to each node.

No namespace has a name and the bridge is not on this machine, so nothing has to be removed: when the processes are
dead, the kernel takes namespaces, bridge and both ends of each cable away.
"""

from __future__ import annotations

import os
import subprocess
import time

from tests.slurm_cluster.settings import Settings

SWITCH = ["unshare", "--net", "--", "bash", "-c", "ip link add br0 type bridge && ip link set br0 up && exec sleep inf"]
MAX_CLUSTERS = 200


def ip(*arguments: str, inside: int | None = None) -> subprocess.CompletedProcess[str]:
    """`ip …`, in the network namespace of process `inside` when given."""
    enter = [] if inside is None else ["nsenter", f"--net=/proc/{inside}/ns/net", "--"]
    return subprocess.run([*enter, "ip", *arguments], capture_output=True, text=True, timeout=20)


def must(done: subprocess.CompletedProcess[str]) -> None:
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(done.args)}: {done.stderr.strip()}")


def wait_for_namespace(pid: int, deadline_s: float = 10.0) -> None:
    """Until process `pid` has left this process' network namespace (unshare has done its work)."""
    end = time.monotonic() + deadline_s
    while os.readlink(f"/proc/{pid}/ns/net") == os.readlink("/proc/self/ns/net"):
        if time.monotonic() > end:
            raise RuntimeError(f"process {pid} got no network namespace within {deadline_s:.0f} s")
        time.sleep(0.01)


def wait_for_bridge(switch: int, deadline_s: float = 10.0) -> None:
    wait_for_namespace(switch)
    end = time.monotonic() + deadline_s
    while ip("link", "show", "br0", inside=switch).returncode != 0:
        if time.monotonic() > end:
            raise RuntimeError(f"no bridge within {deadline_s:.0f} s: may this machine make network bridges?")
        time.sleep(0.02)


def claim_index(switch: int) -> int:
    """The first free cluster number of this machine; the cable of that name is the claim."""
    wait_for_bridge(switch)
    for index in range(1, MAX_CLUSTERS):
        name = Settings("", index=index).interface
        done = ip("link", "add", name, "type", "veth", "peer", "name", "host", "netns", str(switch))
        if done.returncode == 0:
            return index
        if "File exists" not in done.stderr:
            must(done)
    raise RuntimeError(f"{MAX_CLUSTERS} clusters run on this machine already: stop some")


def connect_host(settings: Settings, switch: int) -> None:
    """This machine's address on the nodes' network."""
    must(ip("link", "set", "host", "master", "br0", "up", inside=switch))
    must(ip("addr", "add", f"{settings.host_address}/24", "dev", settings.interface))
    must(ip("link", "set", settings.interface, "up"))


def connect_node(node: str, node_pid: int, switch: int) -> None:
    """A cable from the switch to the node's `eth0`; the old one of a node that was killed may still be going."""
    wait_for_namespace(node_pid)
    end = time.monotonic() + 10.0
    # always the same hardware address: others remember the one of a node that boots again for half a minute
    address = f"02:77:00:00:00:{int(node.removeprefix('n')):02x}"
    eth0 = ["peer", "name", "eth0", "address", address, "netns", str(node_pid)]
    cable = ["link", "add", node, "netns", str(switch), "type", "veth", *eth0]
    while (done := ip(*cable)).returncode != 0:
        if time.monotonic() > end:
            must(done)
        time.sleep(0.05)
    must(ip("link", "set", node, "master", "br0", "up", inside=switch))
