"""A trainer of a known shape with random weights: what the GPU benchmarks measure needs no checkpoint."""

from __future__ import annotations

import os
import random
import tempfile
from pathlib import Path
from typing import Any

import torch

from bench.model_dir import known_shape
from core.config.schema import RunConfig
from core.megatron.trainer import MegatronTrainer
from core.samples import TrainSample


class RandomTrainer(MegatronTrainer):
    """Weights are noise of a usual size instead of a checkpoint's."""

    def _load_weights(self) -> None:
        torch.manual_seed(0)
        with torch.no_grad():
            for name, parameter in self.weights.parameters.items():
                parameter.fill_(1.0) if "norm" in name else parameter.normal_(0.0, 0.02)


def one_rank() -> None:
    """What torchrun would have set."""
    rank = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    os.environ.update(rank)


def make_config(num_samples: int, placement: dict[str, Any] | None = None, **train: Any) -> RunConfig:
    """A run file's values for one optimiser step over `num_samples` samples."""
    sections = {
        "model": {"path": ".", "dtype": "bfloat16"},
        "data": {},
        "rollout": {"num_rollout": 100, "rollout_batch_size": 1, "n_samples_per_prompt": num_samples},
        "train": {"global_batch_size": num_samples, "lr": 1e-6, "max_tokens_per_micro_batch": 16384, **train},
        "placement": placement or {},
    }
    return RunConfig.model_validate(sections)


def make_trainer(shape: str, num_samples: int = 8, streamed: bool = False, **train: Any) -> RandomTrainer:
    """Make a trainer, on the GPU if there is one."""
    one_rank()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    nowhere = Path(tempfile.gettempdir())
    return RandomTrainer(make_config(num_samples, **train), known_shape(shape), nowhere, device, streamed=streamed)


def make_samples(count: int, prompt: int, response: int, vocab: int = 40000, group_size: int = 1) -> list[TrainSample]:
    """Random tokens, one prompt per group; advantages of both signs, none zero, so that nothing is skipped."""
    rng = random.Random(0)
    samples: list[TrainSample] = []
    for index in range(count):
        if index % group_size == 0:
            prompt_tokens = [rng.randrange(10, vocab) for _ in range(prompt)]
        samples.append(
            TrainSample(
                group=index // group_size,
                prompt_tokens=prompt_tokens,
                response_tokens=[rng.randrange(10, vocab) for _ in range(response)],
                loss_mask=[1] * response,
                advantage=1.0 if index % 2 else -1.0,
                logprobs_engine=[-10.0] * response,
            )
        )
    return samples
