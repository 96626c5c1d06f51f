"""What about a node is not as a run wants it, from the node's own report. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from common.mistake import Mistake
from hpc.node.gpu_cards import MIN_CAPABILITY
from hpc.node.health import NodeReport, Wanted

WITHOUT_IT = "leave the node out (slurm.exclude)"


def complaints(report: NodeReport, wanted: Wanted, leader_time: float) -> list[Mistake]:
    """What is wrong with a node; the key is a directory or a GPU, or empty: the node itself. Empty if it is fit.

    Args:
        leader_time: the leader's clock, in seconds since 1970, when the report came.
    """
    return [
        *_gpus(report, wanted),
        *_rooms(report, wanted),
        *_canary(report, wanted),
        *_clock(report, leader_time, wanted),
    ]


def of_all(wrong: Sequence[Sequence[Mistake]], shared: str) -> list[Mistake]:
    """What all nodes complain of alike, as the first one says it; nobody is at fault by it.

    Args:
        wrong: the complaints of each node.
        shared: the directory that all nodes share. Of anything else a node alone cannot complain like all others.
    """
    alike = [one for one in wrong[0] if all(any(map(one.is_like, others)) for others in wrong[1:])]
    return [
        replace(one, remedy=one.remedy.removesuffix(f", or {WITHOUT_IT}"))
        for one in alike
        if len(wrong) > 1 or one.key == shared
    ]


def _gpus(report: NodeReport, wanted: Wanted) -> Iterator[Mistake]:
    if not wanted.gpus:
        return
    if report.gpu_problem:
        remedy = f"see what nvidia-smi says there, or {WITHOUT_IT}"
        yield Mistake("", None, report.gpu_problem, f"{wanted.gpus} GPUs", remedy)
        return
    if len(report.gpus) != wanted.gpus:
        found = f"{len(report.gpus)} of the {wanted.gpus} GPUs"
        yield Mistake("", None, found, "all of them", f"tell the admins that some are gone, or {WITHOUT_IT}")
    for number, gpu in enumerate(report.gpus):
        name, used = f"GPU {number} ({gpu.uuid})", gpu.total_mib - gpu.free_mib
        if used > wanted.max_gpu_used_mib:
            found = f"{used} of {gpu.total_mib} MiB in use before the run"
            remedy = f"end what nvidia-smi shows there, or {WITHOUT_IT}"
            yield Mistake(name, None, found, f"at most {wanted.max_gpu_used_mib}", remedy)
        if gpu.capability is not None and gpu.capability < MIN_CAPABILITY:
            remedy = "ask for other GPUs (gpu_type in the site file)"
            yield Mistake(name, None, f"compute capability {gpu.capability}", f"{MIN_CAPABILITY} or newer", remedy)


def _rooms(report: NodeReport, wanted: Wanted) -> Iterator[Mistake]:
    for path, least in wanted.free_mib.items():
        free = report.free_mib.get(path)
        if path in report.problems:
            remedy = f"have it mounted there, name another directory, or {WITHOUT_IT}"
            yield Mistake(path, None, report.problems[path], "a directory to write to", remedy)
        elif free is not None and free < least:
            remedy = f"remove what is no longer needed there, or {WITHOUT_IT}"
            yield Mistake(path, None, f"{free} MiB free", f"at least {least}", remedy)


def _canary(report: NodeReport, wanted: Wanted) -> Iterator[Mistake]:
    if wanted.canary and report.canary != wanted.canary:
        seen = "another text in" if report.canary else "nothing of"
        yield Mistake(
            "",
            None,
            f"{seen} the file that the leader wrote",
            "a file system that all nodes share",
            "choose a run directory on one (shared_filesystems in the site file)",
        )


def _clock(report: NodeReport, leader_time: float, wanted: Wanted) -> Iterator[Mistake]:
    difference_s = report.clock_s - leader_time
    if abs(difference_s) > wanted.max_clock_difference_s:
        side = "ahead of" if difference_s > 0 else "behind"
        found = f"a clock {abs(difference_s):.0f} s {side} the leader's"
        remedy = f"have its clock set (NTP), or {WITHOUT_IT}"
        yield Mistake("", None, found, f"at most {wanted.max_clock_difference_s:.0f} s", remedy)
