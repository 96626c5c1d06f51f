"""The GPUs of this machine, asked from nvidia-smi."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass


@dataclass(frozen=True)
class Gpu:
    """One GPU as nvidia-smi shows it."""

    uuid: str
    free_mib: int
    total_mib: int


def ask_gpus(visible: str | None, timeout_s: float) -> tuple[tuple[Gpu, ...], str]:
    """The GPUs named by `visible` (as in CUDA_VISIBLE_DEVICES; None: all), or what nvidia-smi said instead."""
    if visible == "":
        return (), ""
    query = ["nvidia-smi", "--query-gpu=uuid,memory.free,memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(
            [*query, *([f"--id={visible}"] if visible else [])],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )
    except FileNotFoundError:
        return (), "no nvidia-smi"
    except subprocess.TimeoutExpired:
        return (), f"nvidia-smi without an answer for {timeout_s:.0f} s"
    if done.returncode != 0:
        return (), f"nvidia-smi failing ({' '.join((done.stdout + done.stderr).split())[:200]})"
    return read_gpus(done.stdout), ""


def read_gpus(text: str) -> tuple[Gpu, ...]:
    """GPUs from nvidia-smi's lines `uuid, free, total`; a line that is none of these counts as no GPU."""
    rows = [[cell.strip() for cell in line.split(",")] for line in text.splitlines()]
    return tuple(Gpu(row[0], int(row[1]), int(row[2])) for row in rows if len(row) == 3 and row[1].isdigit())
