"""A site file against a cluster: what a job of any run would stumble over. Pure."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from common.mistake import Mistake
from hpc.sbatch.job import DEFAULT_TIME_MINUTES, JobSpec
from hpc.sbatch.request_check import check_request
from hpc.site.cluster_facts import ClusterFacts
from hpc.site.schema import Site
from hpc.slurm.component import Component


def site_mistakes(site: Site, facts: ClusterFacts) -> list[Mistake]:
    """What the cluster could not give to the smallest job that uses the site's keys."""
    components = [Component("site", gpus_per_node=site.gpus_per_node or 0, partition=site.partition)]
    components += [Component("cpu_nodes")] if site.cpu_nodes else []
    job = JobSpec(
        name="doctor",
        components=tuple(components),
        time_minutes=site.time_minutes or min(DEFAULT_TIME_MINUTES, site.max_time_minutes or DEFAULT_TIME_MINUTES),
        command=("true",),
        site=site,
        run_dir=Path("/"),
        signal_lead_s=30,
    )
    return check_request(job, facts)


def site_notices(site: Site, facts: ClusterFacts, interfaces: Collection[str], overlap: range) -> list[str]:
    """What may be right, and is worth a look.

    Args:
        interfaces: of this machine.
        overlap: ports of the site's range that the kernel hands out too.
    """
    notices = []
    if site.requeue and not facts.requeue_default:
        notices.append(
            "requeue: true, but this cluster requeues no job that does not ask (JobRequeue=0): do its rules allow it?"
        )
    if not facts.accounting:
        notices.append("sacct does not work here: of a job that ended minutes ago only the run directory knows how")
    if not facts.heterogeneous and site.heterogeneous:
        notices.append("heterogeneous jobs do not start here: jobs of several components need heterogeneous: false")
    if site.interface == "lo":
        notices.append("interface: lo reaches one machine only: right for jobs of one node, no others")
    elif site.interface is not None and site.interface not in interfaces:
        notices.append(f"interface: {site.interface} is not on this machine: have the nodes got it?")
    if len(overlap):
        notices.append(
            f"port_range: the kernel also takes {overlap[0]}-{overlap[-1]} for outgoing connections: a port may "
            "be gone when it is wanted, and another is tried; a range outside of it is better"
        )
    if not site.shared_filesystems:
        notices.append(
            "shared_filesystems: none named: a run directory that the nodes do not see is found on the nodes only"
        )
    return notices
