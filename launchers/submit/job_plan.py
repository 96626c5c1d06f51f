"""The job that a run file and a site describe: its components for Slurm, and who runs where. Pure.

Ports are not in the plan: every server binds one of the site's range on its own node and publishes it, so that two runs
on the same node do not meet.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.slurm_time import time_limit_minutes
from core.config.layout import Node, Part, components, engine_gpus, nodes
from core.config.schema import RunConfig
from hpc.sbatch.job import DEFAULT_TIME_MINUTES, RUN_DIR, JobSpec
from hpc.site.files import Site
from hpc.slurm.component import Component

CODE_DIR = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Process:
    """One process (or server with its children) of a node. `gpus`: indices among those of its node."""

    name: str
    gpus: tuple[int, ...]
    listens: str = ""  # what for; empty: it opens no port


@dataclass(frozen=True)
class NodePlan:
    """One node: one Slurm task, the node agent, and what it starts."""

    procid: int
    component: int
    role: str
    processes: tuple[Process, ...]


@dataclass(frozen=True)
class JobPlan:
    """A run on a cluster."""

    config: RunConfig
    site: Site
    components: tuple[Component, ...]
    nodes: tuple[NodePlan, ...]

    @property
    def time_minutes(self) -> int:
        """The time limit of one attempt."""
        time = self.config.slurm.time or self.site.time
        return time_limit_minutes(time) if time else DEFAULT_TIME_MINUTES

    @property
    def heterogeneous(self) -> bool:
        """Whether it is one job of several components for Slurm."""
        return len(self.components) > 1 and self.config.slurm.heterogeneous and self.site.heterogeneous

    def job(self, run_dir: Path, command: Sequence[str], *, requeue: bool | None = None) -> JobSpec:
        """What is to be submitted; `command` is what every task runs."""
        slurm = self.config.slurm
        return JobSpec(
            name=self.config.name,
            components=self.components,
            time_minutes=self.time_minutes,
            command=tuple(command),
            site=self.site,
            run_dir=run_dir,
            code_dir=CODE_DIR,
            signal_lead_s=slurm.signal_s,
            requeue=self.site.requeue if requeue is None else requeue,
            heterogeneous=slurm.heterogeneous,
            exclude=slurm.exclude,
            environment=slurm.environment,
        )


def task_command(python: str, run_dir: str = RUN_DIR) -> tuple[str, ...]:
    """What every Slurm task of a run executes, if no Submitit is between."""
    return (python, "-u", "-m", "launchers.node.slurm_task", "--run-dir", run_dir)


def make_plan(config: RunConfig, site: Site) -> JobPlan:
    """Components in order, one task per node, numbered through as Slurm does with one step over all components."""
    parts = components(config)
    return JobPlan(
        config=config,
        site=site,
        components=tuple(_component(config, part) for part in parts),
        nodes=tuple(_node(config, node) for node in nodes(config)),
    )


def render(plan: JobPlan) -> str:
    """Component -> node -> process -> GPUs -> ports, as text for a person."""
    return "\n".join(_lines(plan)) + "\n"


def _component(config: RunConfig, part: Part) -> Component:
    used = 0 if config.placement.device == "cpu" else part.gpus_used
    asked, options = part.config.gpus_per_node, dict(part.config.sbatch)
    return Component(
        name=part.role if part.index == 0 else f"{part.role}-{part.index}",
        nodes=part.nodes,
        cpus_per_task=part.config.cpus_per_task,
        gpus_per_node=used if asked is None else asked,
        mem=part.config.mem,
        partition=part.config.partition,
        constraint=part.config.constraint,
        account=options.pop("account", None),
        qos=options.pop("qos", None),
        exclusive=part.config.exclusive,
        options=options,
    )


def _node(config: RunConfig, node: Node) -> NodePlan:
    return NodePlan(node.number, node.part.index, node.role, tuple(_processes(config, node)))


def _processes(config: RunConfig, node: Node) -> Iterator[Process]:
    placement, on_gpus = config.placement, config.placement.device != "cpu"
    yield Process("node agent", (), "the run's store" if node.number == 0 else "")
    if node.role == "trainers":
        for i in range(placement.trainers_per_node):
            rank = node.number * placement.trainers_per_node + i
            yield Process(f"trainer rank {rank}", (i,) if on_gpus else (), "collectives")
    for share in node.shares:
        gpus = tuple(engine_gpus(config, node, share.index)) if on_gpus else ()
        yield Process(f"engine {share.name}", gpus, "its health alone" if share.rank else "generation requests")
    if node.role == "rewards":
        yield Process(f"reward server node{node.number}", (), "samples to score")
        yield Process(f"{node.part.num_reward_workers} reward workers", ())


def _lines(plan: JobPlan) -> Iterator[str]:
    kind = "heterogeneous job" if plan.heterogeneous else "ordinary job"
    first, last = plan.site.ports[0], plan.site.ports[-1]
    yield f"{kind}, {_counted(len(plan.nodes), 'node')}, {plan.time_minutes} min per attempt; ports {first}-{last}"
    for index, component in enumerate(plan.components):
        gpus = f", {_counted(component.gpus_per_node, 'GPU')} each" if component.gpus_per_node else ""
        yield f"component {index} {component.name}: {_counted(component.nodes, 'node')}{gpus}"
        for node in plan.nodes:
            if node.component == index:
                yield f"  node {node.procid} (task {node.procid})"
                yield from (_process_line(process) for process in node.processes)


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _process_line(process: Process) -> str:
    gpus = f"GPU {','.join(map(str, process.gpus))}" if process.gpus else "-"
    listens = f"listens for {process.listens}" if process.listens else ""
    return f"    {process.name:<28}{gpus:<12}{listens}".rstrip()
