"""A first site file from what a cluster says about itself. Pure; `ebbtide doctor` writes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from common.slurm_time import format_time
from hpc.site.cluster_facts import ClusterFacts, Partition, largest


def site_text(facts: ClusterFacts, interfaces: Mapping[str, str] | None = None, containers: Sequence[str] = ()) -> str:
    """A commented site file that `load_site` reads; what could not be found out is there as a comment.

    Args:
        interfaces: addresses of this machine's network interfaces by name.
        containers: container programs found here: apptainer, singularity, or pyxis for an srun that knows containers.
    """
    main = _main_partition(facts)
    lines = [f"# Site file of {facts.name or 'this cluster'} (Slurm {facts.version}), made by `ebbtide doctor`.", ""]
    lines += _where(facts, main)
    lines += _gpus(main)
    lines += _abilities(facts)
    lines += _network(interfaces or {})
    lines += _containers(containers)
    lines += ["# modules: []", "# setup: []", "# environment: {}", "# nodes_exclude: []", "# scratch: /tmp"]
    return "\n".join([*lines, "# shared_filesystems: []   # directories that all nodes see"]) + "\n"


def _main_partition(facts: ClusterFacts) -> Partition | None:
    """The one with the most GPUs; without GPUs the default one."""
    most = largest(facts.partitions)
    return most if most is not None and most.max_gpus else facts.default_partition or most


def _where(facts: ClusterFacts, main: Partition | None) -> list[str]:
    known = ", ".join(_describe(partition) for partition in facts.partitions)
    lines = [f"# partitions: {known}"]
    if main is None:
        return [*lines, "# partition:", ""]
    lines += [f"partition: {main.name}", "# account:    # sacctmgr show associations user=$USER format=account,qos"]
    others = [partition for partition in facts.partitions if not partition.max_gpus and partition.up]
    if main.max_gpus and others:
        cpu = next((partition for partition in others if partition.default), others[0])
        lines += ["cpu_nodes:", f"  partition: {cpu.name}"]
    if main.max_minutes is not None:
        lines += [f"time: {format_time(main.max_minutes)}", f"max_time: {format_time(main.max_minutes)}"]
    else:
        lines += ["# time: 04:00:00    # the partition has no limit"]
    return [*lines, ""]


def _describe(partition: Partition) -> str:
    nodes = sum(group.count for group in partition.nodes)
    gpus = f" with {partition.max_gpus} GPUs" if partition.max_gpus else ""
    return f"{partition.name} ({nodes} node{'s' if nodes != 1 else ''}{gpus})"


def _gpus(main: Partition | None) -> list[str]:
    if main is None or not main.max_gpus:
        return ["# gpus_per_node:    # no partition shows GPUs", ""]
    types = sorted({kind for group in main.nodes for kind in group.gpu_types})
    lines = [f"gpus_per_node: {main.max_gpus}", "gpu_option: gres    # or gpus-per-node"]
    if len(types) == 1:
        lines.append(f"gpu_type: {types[0]}")
    elif types:
        lines.append(f"# gpu_type:    # one of {', '.join(types)}; left out: any")
    return [*lines, ""]


def _abilities(facts: ClusterFacts) -> list[str]:
    requeue = (
        "requeue: true" if facts.requeue_default else "requeue: false    # JobRequeue=0; true if the rules allow it"
    )
    return [
        f"heterogeneous: {_switch(facts.heterogeneous)}",
        requeue,
        f"accounting: {_switch(facts.accounting)}    # sacct {'answers' if facts.accounting else 'does not work'}",
        "",
    ]


def _network(interfaces: Mapping[str, str]) -> list[str]:
    known = ", ".join(f"{name} {address}" for name, address in interfaces.items())
    lines = ["# interface:    # left out: that of the host name's address"]
    lines += [f"#   this machine, perhaps not the nodes, has: {known}"] if known else []
    return [*lines, "port_range: 20000-29999", ""]


def _containers(containers: Sequence[str]) -> list[str]:
    runtime = containers[0] if containers else "apptainer"
    found = f"found: {', '.join(containers)}" if containers else "none was found"
    return [f"# container:    # {found}", f"#   runtime: {runtime}", "#   image:", ""]


def _switch(on: bool) -> str:
    return "true" if on else "false"
