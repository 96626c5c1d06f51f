"""What the host does for a batch before and while the device computes: 256 samples of 1,000 to 2,000 tokens in rows.

Everything from samples to micro-batches, with the values of the loss and the plans for both attention kernels. Beside
it what cannot be avoided: the samples' lists turned into arrays. Figures are per token, as those of an update are: an
H100 computes 17,000 a second of a model of 4B, 73,000 of one of 0.6B (`mfu.json`).
"""

from __future__ import annotations

import random
import statistics
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from bench.record import alternate, report  # noqa: E402
from core.algorithm.aggregation import token_weights  # noqa: E402
from core.megatron.model import row_params  # noqa: E402
from core.megatron.rows.packing import TrainSample, build_row, plan_rows  # noqa: E402
from core.megatron.rows.tokens import TokenTable, TokenValues, micro_batch  # noqa: E402

GROUPS, GROUP_SIZE, PROMPT, RESPONSE, BUDGET = 32, 8, 512, (1000, 2000), 16384
REPETITIONS = 5


def make_samples() -> list[TrainSample]:
    """Random tokens, lengths and advantages, groups sharing their prompts."""
    rng = random.Random(0)
    samples = []
    for group in range(GROUPS):
        prompt = [rng.randrange(40000) for _ in range(PROMPT)]
        for _ in range(GROUP_SIZE):
            length = rng.randrange(*RESPONSE)
            response = [rng.randrange(40000) for _ in range(length)]
            samples.append(TrainSample(group, prompt, response, [1] * length, rng.gauss(0, 1), [-1.0] * length))
    return samples


def prepare(samples: list[TrainSample]) -> None:
    """Prepare rows like `MegatronTrainer.update`, without the part that runs on the device."""
    table = TokenTable(samples)
    values = TokenValues(
        weights=table.flat(token_weights([s.loss_mask for s in samples], "token_mean")),
        advantages=table.spread([s.advantage for s in samples]),
        logprobs_engine=table.flat([s.logprobs_engine for s in samples]),
        logprobs_old=None,
        logprobs_ref=None,
    )
    (plan,) = plan_rows(samples, BUDGET, data_parallel=1, share_prompts=True)
    for units in plan:
        attention = row_params(micro_batch(build_row(samples, units), table, values, "cpu").row, "cpu").attention
        assert attention.ragged.max_queries
        assert attention.whole is None or attention.whole.calls


def convert(samples: list[TrainSample]) -> None:
    """The same samples' lists as arrays."""
    for sample in samples:
        for ids in (sample.prompt_tokens, sample.response_tokens):
            np.asarray(ids, np.int64)
        for numbers in (sample.logprobs_engine, sample.loss_mask):
            np.asarray(numbers, np.float32)


def main() -> None:
    """Measure, print, write results/packing.json."""
    samples = make_samples()
    tokens = sum(len(sample.response_tokens) for sample in samples)
    seconds = alternate({"prepare": lambda: prepare(samples), "convert": lambda: convert(samples)}, REPETITIONS)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    ratio = median["prepare"] / median["convert"]
    report("packing", seconds, us_per_token=median["prepare"] / tokens * 1e6, ratio_to_conversion=ratio, tokens=tokens)


if __name__ == "__main__":
    main()
