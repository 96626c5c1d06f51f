"""Whether a run can use the GPUs that it will get: their kind, and the planner's answer. Asks nobody."""

from __future__ import annotations

from common.mistake import Mistake
from core.checks.model import known_shape
from core.config.schema import RunConfig
from core.planner import Device, notices, plan_memory, problems
from hpc.node.gpu_cards import MIN_CAPABILITY
from hpc.site.schema import Site
from launchers.show.memory_table import verdict
from launchers.submit.which_gpus import common_gpus, on_cpu, site_gpu


def refusals(config: RunConfig, device: Device | None) -> list[Mistake]:
    """What makes the run impossible there; empty if model or device are not known."""
    shape = known_shape(config)
    if device is None:
        return []
    if (found := too_old(device)) or shape is None:
        return found
    return problems(config, shape, plan_memory(config, shape, device))


def too_old(device: Device) -> list[Mistake]:
    """GPUs on which nothing here runs, whatever they hold."""
    if device.capability is None or device.capability >= MIN_CAPABILITY:
        return []
    return [
        Mistake(
            "placement.device",
            None,
            f"GPUs of compute capability {device.capability} ({device.name})",
            f"{MIN_CAPABILITY} or newer, such as A100, L4 or H100, which have bfloat16",
            "ask for other GPUs, or set placement.device to cpu",
        )
    ]


def warnings(config: RunConfig, device: Device | None) -> list[str]:
    """What the user should know of a run that is possible there."""
    shape = known_shape(config)
    if shape is None or device is None:
        return []
    return [str(notice) for notice in notices(config, shape, plan_memory(config, shape, device))]


def site_warnings(config: RunConfig, site: Site) -> list[str]:
    """As `warnings`; where the site does not say what its GPUs have, that and what some would make of the run."""
    shape, device = known_shape(config), site_gpu(site)
    if shape is None or on_cpu(config, site):
        return []
    if device is not None:
        return warnings(config, device)
    fits = {gpu.name: verdict(plan_memory(config, shape, gpu)).partition(":")[0] for gpu in common_gpus()}
    shown = "; ".join(f"{name} {word}" for name, word in fits.items())
    found = "a site file without gpu_memory and without a gpu_type that is known"
    wanted = f"one of them, to check whether the run fits ({shown})"
    return [str(Mistake("gpu_memory", None, found, wanted, "add one of them, and see `ebbtide plan`"))]
