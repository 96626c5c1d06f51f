"""What a component asks Slurm for, as `#SBATCH` lines; and several components as one request."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from common.memory_size import slurm_memory_bytes
from common.mistake import Wrong
from hpc.sbatch.job import JobSpec
from hpc.sbatch.quote import directive
from hpc.site.schema import CpuNodes, Site
from hpc.slurm.component import Component

_WHERE = ("partition", "account", "qos", "constraint")


def requests(job: JobSpec) -> tuple[Component, ...]:
    """The components that Slurm is asked for: those of the job, or one with room for all of them."""
    placed = tuple(_placed(component, job.site) for component in job.components)
    return placed if job.num_het_components == len(placed) else (merged(placed),)


def request_lines(component: Component, job: JobSpec) -> list[str]:
    """The lines that each component has for itself."""
    lines = [directive(key, value) for key in _WHERE if (value := getattr(component, key))]
    lines += [directive("nodes", component.nodes), directive("ntasks-per-node", component.tasks_per_node)]
    if component.cpus_per_task:
        lines.append(directive("cpus-per-task", component.cpus_per_task))
    if component.gpus_per_node:
        lines.append(_gpus(component.gpus_per_node, job.site))
    if component.mem:
        lines.append(directive("mem", component.mem))
    if component.exclusive:
        lines.append(directive("exclusive"))
    if job.excluded_nodes:
        lines.append(directive("exclude", ",".join(job.excluded_nodes)))
    options = {**job.site.sbatch, **component.options}
    return lines + [directive(option, value or None) for option, value in sorted(options.items())]


def merged(components: tuple[Component, ...]) -> Component:
    """One component with the nodes of all, each node large enough for any of them.

    Raises:
        Wrong: (a ValueError) they differ in what one allocation can have only once.
    """
    first, *rest = components
    needy = next((component for component in components if component.gpus_per_node), first)  # scarce nodes decide
    for component in rest:
        if component.tasks_per_node != first.tasks_per_node:
            raise _unmergeable("tasks_per_node", [str(c.tasks_per_node) for c in components])
    return replace(
        first,
        nodes=sum(component.nodes for component in components),
        cpus_per_task=max((c.cpus_per_task for c in components if c.cpus_per_task), default=None),
        gpus_per_node=max(component.gpus_per_node for component in components),
        mem=_most_memory(component.mem for component in components),
        exclusive=any(component.exclusive for component in components),
        options=_one_mapping(components),
        **{key: getattr(needy, key) for key in _WHERE},
    )


def _placed(component: Component, site: Site) -> Component:
    """The component with the site's partition, account, qos and constraint where it names none."""
    where: Site | CpuNodes = site.cpu_nodes if site.cpu_nodes and not component.gpus_per_node else site
    return replace(component, **{key: getattr(component, key) or getattr(where, key) for key in _WHERE})


def _gpus(count: int, site: Site) -> str:
    kind = f"{site.gpu_type}:" if site.gpu_type else ""
    if site.gpu_option == "gpus-per-node":
        return directive("gpus-per-node", f"{kind}{count}")
    return directive("gres", f"gpu:{kind}{count}")


def _most_memory(sizes: Iterable[str | None]) -> str | None:
    given = [size for size in sizes if size]
    return "0" if "0" in given else max(given, key=slurm_memory_bytes, default=None)  # 0 asks for all of the node


def _one_mapping(components: tuple[Component, ...]) -> dict[str, str]:
    options: dict[str, str] = {}
    for component in components:
        for option, value in component.options.items():
            if options.setdefault(option, value) != value:
                raise _unmergeable(f"the option {option}", [options[option], value])
    return options


def _unmergeable(what: str, values: list[str]) -> Wrong:
    found = f"components that differ in {what} ({', '.join(values)})"
    return Wrong(found, "one value: without heterogeneous jobs they share an allocation", "make it the same for all")
