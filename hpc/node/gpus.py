"""The GPUs of this machine, asked from nvidia-smi."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass

LISTED = re.compile(r"^\s*(?:GPU (\d+)|MIG .*Device\s+\d+): .*\(?UUID: ([^)]+)\)", re.MULTILINE)

LINE = re.compile(r"(?P<uuid>[^,\s]+), *(?P<free>\d+), *(?P<total>\d+)(?:, *(?:(?P<capability>\d+\.\d+)|[^,]*))?")


class NoSuchGpu(RuntimeError):
    """The GPUs of this machine cannot be named, or are not those that were asked for."""


@dataclass(frozen=True)
class Gpu:
    """One GPU as nvidia-smi shows it."""

    uuid: str
    free_mib: int
    total_mib: int
    capability: float | None = None  # NVIDIA's compute capability; None: not told


def ask_gpus(visible: str | None, timeout_s: float) -> tuple[tuple[Gpu, ...], str]:
    """The GPUs named by `visible` (as in CUDA_VISIBLE_DEVICES; None: all), or what nvidia-smi said instead."""
    if visible == "":
        return (), ""
    try:
        done = _query("uuid,memory.free,memory.total,compute_cap", visible, timeout_s, "nounits")
    except FileNotFoundError:
        return (), "no nvidia-smi"
    except subprocess.TimeoutExpired:
        return (), f"nvidia-smi without an answer for {timeout_s:.0f} s"
    if done.returncode != 0:
        return (), f"nvidia-smi failing ({' '.join((done.stdout + done.stderr).split())[:200]})"
    return read_gpus(done.stdout), ""


def gpu_names(visible: str | None, timeout_s: float) -> tuple[str, ...]:
    """What the GPUs named by `visible` are called, with memory and driver; empty where nothing tells."""
    if visible == "":
        return ()
    try:
        done = _query("name,memory.total,driver_version", visible, timeout_s)
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(line.strip() for line in done.stdout.splitlines()) if done.returncode == 0 else ()


def _query(fields: str, visible: str | None, timeout_s: float, *forms: str) -> subprocess.CompletedProcess[str]:
    form = ",".join(("csv", "noheader", *forms))
    chosen = [f"--id={visible}"] if visible else []
    return subprocess.run(
        ["nvidia-smi", f"--query-gpu={fields}", f"--format={form}", *chosen],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )


def read_gpus(text: str) -> tuple[Gpu, ...]:
    """GPUs from nvidia-smi's lines `uuid, free, total, capability`; one without memory counts as no GPU."""
    rows = (LINE.fullmatch(line.strip()) for line in text.splitlines())
    return tuple(
        Gpu(row["uuid"], int(row["free"]), int(row["total"]), float(row["capability"]) if row["capability"] else None)
        for row in rows
        if row
    )


@dataclass(frozen=True)
class VisibleGpu:
    """One GPU, or one MIG instance of one, that this process may use."""

    uuid: str
    index: int | None  # among the GPUs of the machine, in the order of the PCI bus; None: a MIG instance


def visible_gpus(visible: str | None, timeout_s: float = 60.0) -> tuple[VisibleGpu, ...]:
    """The GPUs that `visible` (CUDA_VISIBLE_DEVICES; None: all) names, in its order.

    Raises:
        NoSuchGpu: nvidia-smi does not answer, or does not know one of them.
    """
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=timeout_s, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise NoSuchGpu(f"nvidia-smi -L: {error}; wanted the list of GPUs: repair it, or set device to cpu") from error
    return choose_gpus(done.stdout, visible)


def choose_gpus(listing: str, visible: str | None) -> tuple[VisibleGpu, ...]:
    """The answer of `visible_gpus`, taken from the output of `nvidia-smi -L`. Pure."""
    known = [VisibleGpu(uuid, int(index) if index else None) for index, uuid in LISTED.findall(listing)]
    if visible is None:
        return tuple(gpu for gpu in known if gpu.index is not None)
    return tuple(_chosen(known, name.strip()) for name in visible.split(",") if name.strip())


def _chosen(known: list[VisibleGpu], name: str) -> VisibleGpu:
    """An index, or the beginning of a UUID if only one begins so."""
    found = [gpu for gpu in known if (gpu.index == int(name) if name.isdigit() else gpu.uuid.startswith(name))]
    if len(found) != 1:
        there = ", ".join(gpu.uuid if gpu.index is None else f"{gpu.index} = {gpu.uuid}" for gpu in known)
        raise NoSuchGpu(
            f"CUDA_VISIBLE_DEVICES names {name!r}, which is {len(found)} GPUs of this machine; wanted one of "
            f"{there or 'none'}: correct it"
        )
    return found[0]
