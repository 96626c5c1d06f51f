"""Updates of small batches: rows as CUDA graphs and kernel by kernel, in turns, beside the time that the kernels take.

Groups of eight samples with a prompt of 32 tokens and responses of 32, in one row per update. An update is
packing, forward, backward and the optimiser step. The kernels' time is their sum by torch's profiler, of an update
kernel by kernel: what would be left if the host took no time at all.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

from bench.gpu_trainer import RandomTrainer, make_samples, make_trainer
from bench.limits import kernels_of
from bench.record import alternate, report
from core.megatron.sizes.graphs import Graphs
from core.samples import TrainSample

# about so many tokens in whole groups, prompts counted once
CASES = {"smollm2-135m": [500, 1000, 2000, 4000], "qwen3-0.6b": [1000, 2000, 4000]}
GROUP_SIZE, PROMPT, RESPONSE, REPETITIONS = 8, 32, 32, 10
MOST_TOKENS = 4096


def update(trainer: RandomTrainer, samples: list[TrainSample]) -> None:
    trainer.update(samples)
    torch.cuda.synchronize()


def measure(shape: str) -> list[dict[str, Any]]:
    """One line for each number of tokens."""
    trainer = make_trainer(shape, lr=1e-9)
    plain = trainer.policy.training_pass
    trainer.use_graphs(Graphs(MOST_TOKENS, all_rows=False))
    graphs, lines = trainer.policy.training_pass, []

    def by(learn: Any, samples: list[TrainSample]) -> None:
        trainer.policy.training_pass = learn
        update(trainer, samples)

    for tokens in CASES[shape]:
        groups = max(1, tokens // (PROMPT + GROUP_SIZE * (RESPONSE - 1)))
        samples = make_samples(groups * GROUP_SIZE, PROMPT, RESPONSE, group_size=GROUP_SIZE)
        before = torch.cuda.memory_reserved()
        for _ in range(2):  # the second one is captured
            by(graphs, samples)
        cases = {"graphs": lambda s=samples: by(graphs, s), "kernels": lambda s=samples: by(plain, s)}
        seconds = alternate(cases, REPETITIONS)
        trainer.policy.training_pass = plain
        line = {"shape": shape, "tokens": trainer.update(samples).metrics["perf/train_tokens"], "seconds": seconds}
        line |= {"reserved_gib": (torch.cuda.memory_reserved() - before) / 2**30}
        line |= {"kernels_alone": sum(e.self_device_time_total for e in kernels_of(cases["kernels"])) / 1e6}
        lines.append(line)
        show(line)
    trainer.close()
    return lines


def show(line: dict[str, Any]) -> None:
    """Print it."""
    graphs, kernels = (statistics.median(line["seconds"][name]) for name in ("graphs", "kernels"))
    print(
        f"{line['shape']:<14}{line['tokens']:>6.0f} tokens  graphs {graphs:.4f} s  kernel by kernel {kernels:.4f} s  "
        f"ratio {kernels / graphs:.2f}  kernels alone {line['kernels_alone']:.4f} s  "
        f"memory {line['reserved_gib']:.2f} GiB",
        flush=True,
    )


def main() -> None:
    """Measure, print, write results/row_graphs.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="*", default=list(CASES), choices=list(CASES))
    lines = [line for shape in parser.parse_args().shapes for line in measure(shape)]
    seconds = {
        f"{line['shape']} {line['tokens']:.0f} {name}": values
        for line in lines
        for name, values in line["seconds"].items()
    }
    report("row_graphs", seconds, row_graphs=lines)


if __name__ == "__main__":
    main()
