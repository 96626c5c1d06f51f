"""What a captured backward pass does, here kernel by kernel: gradients get where Megatron's own hooks bring them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from core.config.schema import RunConfig
from core.megatron.model import forward_row
from core.megatron.row_graphs import _call, add_gradients, alias
from core.megatron.trainer import MegatronTrainer
from core.packing import TrainSample, pack
from core.shape import model_shape
from tests.tiny_models import tiny_model


@pytest.fixture(params=["qwen3-tied", "llama"])
def trainer(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[MegatronTrainer]:
    """With an output layer that is the embedding, and one of its own."""
    rank = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    for name, value in rank.items():
        monkeypatch.setenv(name, value)
    model_dir = tiny_model(request.param, tmp_path / "model")
    sections = {
        "model": {"path": str(model_dir), "dtype": "float32"},
        "data": {},
        "rollout": {"num_rollout": 1, "rollout_batch_size": 1, "n_samples_per_prompt": 1},
        "train": {"global_batch_size": 1, "lr": 1e-6},
    }
    config = RunConfig.model_validate(sections)
    made = MegatronTrainer(config, model_shape(config.model, model_dir), model_dir, "cpu")
    yield made
    made.close()


def test_aliases_bring_the_gradients_of_their_parameters(trainer: MegatronTrainer) -> None:
    wrapped: Any = trainer._optimizer.model.train()
    samples = [TrainSample(0, [5, 6, 7], [8, 9, 10, 11], [1] * 4, 1.0, [-1.0] * 4)]
    row = pack(samples, 64)[0][0]
    gradients = [parameter.main_grad for parameter in wrapped.parameters()]

    logprobs, _ = forward_row(wrapped, row, "cpu")
    logprobs.sum().backward()
    wanted = [gradient.clone() for gradient in gradients]
    assert all(gradient.abs().sum() > 0 for gradient in wanted)

    trainer._optimizer.zero_grad()
    leaves = {name: alias(parameter) for name, parameter in wrapped.named_parameters()}
    logprobs, _ = forward_row(partial(_call, wrapped, leaves), row, "cpu")
    add_gradients([logprobs], list(leaves.values()), [torch.ones_like(logprobs)])
    for found, expected in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(found, expected)
