"""Whether a run can use what it will get: GPUs of that kind or none, and the planner's answer. Asks nobody."""

from __future__ import annotations

from common.mistake import Mistake
from core.checks.engine_weights import KEY, not_computed
from core.checks.model import unserved_on_cpus
from core.checks.speculation import drafts_on_cpus
from core.planner import Device, notices, plan_memory, problems
from core.pretrained.few_bits import FEW_BITS
from hpc.node.gpu_cards import MIN_CAPABILITY
from launchers.show.memory_table import verdict
from launchers.submit.submission import Submission
from launchers.submit.which_gpus import common_gpus, on_cpu


def refusals(submission: Submission) -> list[Mistake]:
    """What makes the run impossible there; empty if model or device are not known."""
    if found := [*too_old(submission.device), *unserved(submission), *without_few_bits(submission)]:
        return found
    if submission.shape is None or submission.memory is None:
        return []
    return problems(submission.config, submission.shape, submission.memory)


def too_old(device: Device | None) -> list[Mistake]:
    """GPUs on which nothing here runs, whatever they hold."""
    if device is None or device.capability is None or device.capability >= MIN_CAPABILITY:
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


def unserved(submission: Submission) -> list[Mistake]:
    """Engines on CPUs, as there are no GPUs, for a model or for options that need them."""
    device, config = submission.device, submission.config
    if device is None or device.kind != "cpu" or config.placement.device != "auto":
        return []
    told = f"auto, which is cpu on {device.name},"
    return [*unserved_on_cpus(config, submission.shape, told), *drafts_on_cpus(config, told)]


def without_few_bits(submission: Submission) -> list[Mistake]:
    """Engines in few bits on what does not compute in them."""
    device, way = submission.device, FEW_BITS.get(submission.config.placement.engine_weights)
    if device is None or way is None:
        return []
    wrong = not_computed(way, device.kind, device.capability, submission.shape)
    return [] if wrong is None else [wrong.at(KEY)]


def warnings(submission: Submission) -> list[str]:
    """What the user should know of a run that is possible there."""
    if submission.shape is None or submission.memory is None:
        return []
    return [str(notice) for notice in notices(submission.config, submission.shape, submission.memory)]


def site_warnings(submission: Submission) -> list[str]:
    """The `warnings`; if the site names no GPU size, also that memory was not checked, and what some would hold."""
    config, shape = submission.config, submission.shape
    if shape is None or submission.device is not None or on_cpu(config, submission.site):
        return warnings(submission)
    fits = {gpu.name: verdict(plan_memory(config, shape, gpu)).partition(":")[0] for gpu in common_gpus()}
    shown = "; ".join(f"{name} {word}" for name, word in fits.items())
    found = "a site file without gpu_memory and without a gpu_type that is known"
    wanted = f"one of them, to check whether the run fits ({shown})"
    return [str(Mistake("gpu_memory", None, found, wanted, "add one of them, and see `ebbtide plan`"))]
