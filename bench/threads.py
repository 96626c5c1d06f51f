"""How CPU threads that wait for each other share cores with others: alone, and beside a process that does the same.

Each case is a forward pass of a small model's matrix products with one thread per core, under GNU
OpenMP's default wait and under the short one that trainers and engines get (`core/processes/device.py`). The limit:
beside another twice as long as alone.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from bench.record import report  # noqa: E402
from core.processes.device import num_threads, thread_environment  # noqa: E402

LAYERS, ROWS, HIDDEN, WIDE = 30, 64, 576, 1536  # of SmolLM2-135M
SECONDS, TURNS = 3.0, 3
PLACES = ("alone", "beside another")
WAITS = {"default": {}, "short": thread_environment(num_threads(1), {})}


def forward(hidden: torch.Tensor, layers: list[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    """Two products and a norm per layer."""
    for up, down in layers:
        hidden = torch.nn.functional.silu(hidden @ up) @ down * 0.01
        hidden = torch.nn.functional.rms_norm(hidden, (HIDDEN,))
    return hidden


@torch.no_grad()
def work() -> None:
    """Print the median seconds of a forward pass, over SECONDS."""
    layers = [(torch.randn(HIDDEN, WIDE), torch.randn(WIDE, HIDDEN)) for _ in range(LAYERS)]
    hidden = torch.randn(ROWS, HIDDEN)
    forward(hidden, layers)
    found = []
    ends = time.perf_counter() + SECONDS
    while (began := time.perf_counter()) < ends:
        forward(hidden, layers)
        found.append(time.perf_counter() - began)
    print(statistics.median(found))


def measure(wait: str, processes: int) -> list[float]:
    """Seconds of a forward pass in each of the processes at once."""
    base = {key: value for key, value in os.environ.items() if not key.startswith(("OMP_", "GOMP_"))}
    command = [sys.executable, __file__, "work"]
    started = [
        subprocess.Popen(command, env=base | WAITS[wait], stdout=subprocess.PIPE, text=True) for _ in range(processes)
    ]
    return [float(process.communicate(timeout=120)[0]) for process in started]


def main() -> None:
    """Measure in turns, print, write results/threads.json."""
    cases = {f"{wait}, {where}": (wait, 1 + (where == "beside another")) for wait in WAITS for where in PLACES}
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(TURNS):
        for name, case in cases.items():
            seconds[name] += measure(*case)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    beside = {wait: median[f"{wait}, beside another"] / median["default, alone"] for wait in WAITS}
    report("threads", seconds, short_over_alone=beside["short"], default_over_alone=beside["default"], limit=2.0)


if __name__ == "__main__":
    work() if sys.argv[1:] == ["work"] else main()
