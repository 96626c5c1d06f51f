"""Which device, precision and how many threads this machine gives."""

from __future__ import annotations

import os
import resource
from collections.abc import Mapping
from pathlib import Path

GPUS_OF_THE_KERNEL = Path("/proc/driver/nvidia/gpus")  # one folder each, whatever torch can do
SPIN_COUNT = 1000  # of an OpenMP thread that waits for others; GNU's default is 300,000 and more


def resolve_device(wanted: str) -> str:
    """`cpu` or `cuda` for the run file's placement.device.

    Raises:
        ValueError: if cuda is asked for and there is none, or auto would leave GPUs idle.
    """
    import torch

    present = torch.cuda.is_available()
    if wanted == "auto" and torch.version.cuda is None and GPUS_OF_THE_KERNEL.is_dir():
        raise ValueError(
            f"placement.device = auto: found GPUs here, but torch {torch.__version__}, which cannot use them: "
            "`make clean`, then `make install GPU=yes`; or set placement.device to cpu"
        )
    if wanted == "cuda" and not present:
        raise ValueError("placement.device = cuda, but torch sees no GPU here: choose auto or cpu, or a GPU node")
    return "cuda" if present and wanted != "cpu" else "cpu"


def resolve_dtype(wanted: str, device: str) -> str:
    """`float32` or `bfloat16` for the run file's model.dtype."""
    return ("bfloat16" if device == "cuda" else "float32") if wanted == "auto" else wanted


def peak_rss_gib() -> float:
    """Largest resident memory of this process so far, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def peak_memory(device: str) -> dict[str, float]:
    """What this process has held at most so far, as metrics in GiB: on the host, and of torch's on its GPU."""
    import torch

    on_gpu = {"perf/gpu_memory_gib_max": torch.cuda.max_memory_allocated() / 2**30} if device == "cuda" else {}
    return {"perf/host_memory_gib_max": peak_rss_gib(), **on_gpu}


def num_threads(num_processes: int) -> int:
    """CPU threads for each of the equal processes on this machine."""
    return max(1, len(os.sched_getaffinity(0)) // num_processes)


def thread_environment(num_threads: int, base: Mapping[str, str]) -> dict[str, str]:
    """Variables for a process that computes with this number of threads of torch's OpenMP.

    Threads spin while they wait for each other. Where others want the cores too, the one that is waited for may not
    run meanwhile: a forward pass of two threads took 284 ms beside a second one like it, 127 ms with short spinning;
    alone 75 and 67 ms (bench/threads.py).

    Args:
        base: the environment that they are added to; how its user has them wait is left alone.
    """
    threads = {"OMP_NUM_THREADS": str(num_threads)}
    own = {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & set(base)
    return threads if own else threads | {"GOMP_SPINCOUNT": str(SPIN_COUNT)}


def gpu_uuid(device: str) -> str | None:
    """The UUID of this process's GPU, if it has one."""
    import torch

    if device != "cuda":
        return None
    return f"GPU-{torch.cuda.get_device_properties(int(os.environ['LOCAL_RANK'])).uuid}"
