"""The job on a cluster: what its sections say, before any site or cluster is asked."""

from __future__ import annotations

import re
from collections.abc import Iterator

from common.hostlist import check_nodes
from common.memory_size import slurm_memory_bytes
from common.mistake import Mistake, Wrong
from common.slurm_time import time_limit_s
from core.config import layout
from core.config.schema import RunConfig
from core.config.sections.slurm import SlurmComponent

ONLY_FOR = {"engines_per_node": "engines", "num_workers": "rewards"}


def time_limit(config: RunConfig) -> Iterator[Mistake]:
    """A walltime that leaves time to work before the warning comes."""
    slurm = config.slurm
    if slurm.time is None:
        return
    try:
        limit_s = time_limit_s(slurm.time)
    except Wrong as wrong:
        yield wrong.at("slurm.time")
        return
    if slurm.signal_s >= limit_s:
        yield Mistake(
            "slurm.signal_s",
            None,
            f"a warning {slurm.signal_s} s before a limit of {limit_s} s",
            "a warning that comes after the start",
            "lower signal_s (one step and one checkpoint must fit into it), or raise slurm.time",
        )


def parts_of_the_job(config: RunConfig) -> Iterator[Mistake]:
    """Trainers first and once; keys that mean something for their role."""
    roles = [component.role for component in config.slurm.components]
    if roles and roles[0] != "trainers":
        yield Mistake(
            "slurm.components.0.role", None, roles[0], "trainers", "put the trainers' part first: it leads the job"
        )
    if roles.count("trainers") > 1:
        remedy = "use one part, and placement.num_nodes for its size"
        yield Mistake("slurm.components", None, f"{roles.count('trainers')} parts of trainers", "one", remedy)
    for index, component in enumerate(config.slurm.components):
        yield from _component(f"slurm.components.{index}", component)


def trainers_have_their_nodes(config: RunConfig) -> Iterator[Mistake]:
    """`placement.num_nodes` counts the trainers' nodes; the trainers' part may only repeat it."""
    for index, component in enumerate(config.slurm.components):
        if component.role == "trainers" and component.nodes not in (None, config.placement.num_nodes):
            yield Mistake(
                f"slurm.components.{index}.nodes",
                None,
                str(component.nodes),
                f"placement.num_nodes, {config.placement.num_nodes}",
                "leave it out, or change placement.num_nodes",
            )


def gpus_suffice(config: RunConfig) -> Iterator[Mistake]:
    """A node is given the GPUs that its processes use."""
    if config.placement.device == "cpu":
        return
    for part in layout.components(config):
        asked = part.config.gpus_per_node
        if asked is not None and asked < part.gpus_used:
            yield Mistake(
                f"slurm.components.{part.index}.gpus_per_node",
                None,
                str(asked),
                f"at least the {part.gpus_used} GPUs that the processes of a node use",
                "raise it, or leave it out",
            )


def node_names(config: RunConfig) -> Iterator[Mistake]:
    """One node, or one range of nodes, per entry."""
    for index, name in enumerate(config.slurm.exclude):
        try:
            check_nodes(name)
        except Wrong as wrong:
            yield wrong.at(f"slurm.exclude.{index}")


def variables(config: RunConfig) -> Iterator[Mistake]:
    """Names that a shell can export, values on one line."""
    for name, value in config.slurm.environment.items():
        key = f"slurm.environment.{name}"
        if not re.fullmatch(r"[A-Za-z_]\w*", name):
            yield Mistake(key, None, repr(name), "letters, digits and _", "choose a name that a shell accepts")
        if "\n" in value or "\0" in value:
            yield Mistake(
                key, None, "a value of several lines", "one line", "put the text in a file, and name the file"
            )


def _component(key: str, component: SlurmComponent) -> Iterator[Mistake]:
    try:
        slurm_memory_bytes(component.mem or "0")
    except Wrong as wrong:
        yield wrong.at(f"{key}.mem")
    for option, value in component.sbatch.items():
        if "\n" in value or "\0" in value:
            yield Mistake(f"{key}.sbatch.{option}", None, "a value of several lines", "one line", "correct it")
    for name, role in ONLY_FOR.items():
        if getattr(component, name) is not None and component.role != role:
            remedy = "leave it out" + (
                "; placement.engines_per_node counts the colocated ones" if component.role == "trainers" else ""
            )
            yield Mistake(f"{key}.{name}", None, f"{name} on a part of {component.role}", f"a part of {role}", remedy)
    if component.role == "rewards" and component.gpus_per_node:
        yield Mistake(
            f"{key}.gpus_per_node", None, f"{component.gpus_per_node} GPUs for reward workers", "0", "leave it out"
        )
