"""A job held against the facts of its cluster: what sbatch would refuse, or leave in the queue for ever. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from common.memory_size import slurm_memory_bytes
from common.mistake import Mistake, Wrong
from common.nearest import nearest
from common.slurm_time import format_time
from common.units import MIB
from hpc.sbatch.job import JobSpec
from hpc.sbatch.request import requests
from hpc.site.cluster_facts import ClusterFacts, NodeGroup, Partition
from hpc.slurm.component import Component
from hpc.slurm.constraint import feature_names, needed_features


def check_request(job: JobSpec, facts: ClusterFacts) -> list[Mistake]:
    """Everything about `job` that this cluster cannot give; the key is the component's name, or empty: the job."""
    try:
        components = requests(job)
    except Wrong as wrong:
        return [wrong.at("")]
    mistakes = list(_job_mistakes(job, facts))
    for component in components:
        mistakes += _component_mistakes(component, job, facts)
    return list(dict.fromkeys(mistakes))


def _job_mistakes(job: JobSpec, facts: ClusterFacts) -> Iterator[Mistake]:
    if job.num_het_components > 1 and not facts.heterogeneous:
        wanted = "an ordinary one, for this cluster's scheduler starts no heterogeneous jobs"
        remedy = "set heterogeneous: false in the site file"
        yield Mistake("", None, "a job of several components", wanted, remedy)
    if "accounting" in job.site.model_fields_set and job.site.accounting and not facts.accounting:
        remedy = "correct the site file"
        yield Mistake("", None, "accounting: true", "false, for sacct does not work here", remedy)
    elements = len(job.array_run_dirs)
    if elements > facts.max_array_size - 1:
        wanted = f"at most {facts.max_array_size - 1}, the cluster's limit"
        yield Mistake("", None, f"{elements} runs", wanted, "split the sweep")


def _component_mistakes(component: Component, job: JobSpec, facts: ClusterFacts) -> Iterator[Mistake]:
    names = component.partition.split(",") if component.partition else []
    unknown = [name for name in names if facts.partition(name) is None]
    for name in unknown:
        yield _unknown_partition(component, name, facts)
    partitions = [partition for name in names if (partition := facts.partition(name)) is not None]
    if not names and facts.default_partition is not None:
        partitions = [facts.default_partition]
    if not names and not partitions:
        known = ", ".join(partition.name for partition in facts.partitions)
        remedy = f"set partition in the site file to one of {known}"
        yield Mistake(component.name, None, "no partition", "one, for the cluster has no default", remedy)
    if unknown_features := [name for name in feature_names(component.constraint or "") if name not in facts.features]:
        yield from (_unknown_feature(component, name, partitions, facts) for name in unknown_features)
        component = replace(component, constraint=None)  # said once, and not again as nodes that are missing
    complaints = [_partition_mistake(component, job, partition) for partition in partitions]
    if complaints and complaints[0] is not None and None not in complaints:  # of several one that fits is enough
        yield complaints[0]


def _unknown_partition(component: Component, name: str, facts: ClusterFacts) -> Mistake:
    known = [partition.name for partition in facts.partitions]
    suggestion = nearest(name, known)
    remedy = f"did you mean {suggestion}?" if suggestion else "correct it in the site file, or in the run file's slurm"
    return Mistake(component.name, None, f"the partition {name}", f"one of {', '.join(known)}", remedy)


def _unknown_feature(component: Component, name: str, partitions: Sequence[Partition], facts: ClusterFacts) -> Mistake:
    near_by = {feature for partition in partitions for group in partition.nodes for feature in group.features}
    known = sorted(near_by or facts.features)
    wanted = f"one of {', '.join(known)}" if known else "no constraint, as no node of this cluster has a feature"
    suggestion = nearest(name, facts.features)
    remedy = "correct constraint in the site file, or in the run file's slurm, or leave it out"
    return Mistake(
        component.name, None, f"the feature {name}", wanted, f"did you mean {suggestion}?" if suggestion else remedy
    )


def _partition_mistake(component: Component, job: JobSpec, partition: Partition) -> Mistake | None:
    """The first thing that the partition cannot give; None if it can give all."""

    def mistake(found: str, wanted: str, remedy: str) -> Mistake:
        return Mistake(component.name, None, found, wanted, remedy)

    where = f"of partition {partition.name}"
    if not partition.up:
        found = f"the partition {partition.name}, which is down"
        return mistake(found, "one that is up", "choose another, or wait")
    if partition.max_minutes is not None and job.time_minutes > partition.max_minutes:
        return mistake(
            f"a time limit of {format_time(job.time_minutes)}",
            f"at most {format_time(partition.max_minutes)}, the limit {where}",
            "lower slurm.time, for a run goes on in the next job, or choose another partition",
        )
    if component.gpus_per_node and not partition.max_gpus:
        remedy = "set placement.device to cpu, or choose another partition"
        return mistake(f"{component.gpus_per_node} GPUs per node", f"none, as {where[3:]} has none", remedy)
    if component.gpus_per_node > partition.max_gpus:
        return mistake(
            f"{component.gpus_per_node} GPUs per node",
            f"at most {partition.max_gpus}, the most {where}",
            "choose another partition, or fewer GPUs per node and more nodes",
        )
    kind = job.site.gpu_type
    types = frozenset(kind for group in partition.nodes for kind in group.gpu_types)
    if component.gpus_per_node and kind and types and kind not in types:
        return mistake(f"gpu_type {kind}", f"one of {', '.join(sorted(types))}", "correct it in the site file")
    fitting = [group for group in partition.nodes if _fits(component, job, group)]
    num_nodes = sum(group.count for group in fitting)
    if num_nodes < component.nodes:
        return mistake(
            f"{_count(component.nodes, 'node')} with {_wish(component)}",
            f"at most {num_nodes}, all such nodes {where}",
            "ask for fewer or smaller nodes, or choose another partition",
        )
    return None


def _fits(component: Component, job: JobSpec, group: NodeGroup) -> bool:
    kind = job.site.gpu_type
    typed = not (component.gpus_per_node and kind and group.gpu_types) or kind in group.gpu_types
    cpus = (component.cpus_per_task or 1) * component.tasks_per_node
    memory = slurm_memory_bytes(component.mem or "0")
    featured = needed_features(component.constraint or "") <= group.features
    sized = group.cpus >= cpus and group.memory_mib * MIB >= memory
    return typed and featured and group.gpus >= component.gpus_per_node and sized


def _wish(component: Component) -> str:
    parts = [_count(component.gpus_per_node, "GPU")] if component.gpus_per_node else []
    parts.append(_count((component.cpus_per_task or 1) * component.tasks_per_node, "CPU"))
    parts += [f"{component.mem} of memory"] if component.mem not in (None, "0") else []
    parts += [f"feature {name}" for name in sorted(needed_features(component.constraint or ""))]
    return " and ".join(parts)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
