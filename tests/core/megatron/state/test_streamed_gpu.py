"""On a GPU: a state that streams in many small pieces gives the bits of a resident one, through saves and loads."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from core.config.schema import RunConfig
from core.megatron.state import streamed
from core.megatron.trainer import MegatronTrainer
from core.pretrained.shape import model_shape
from core.residency import TRAINER_PARTS
from tests.support.tiny_models import GPU_SIZES, tiny_model

pytestmark = pytest.mark.gpu
PIECE = 2**14  # elements: dozens of pieces, and tensors of several
STEPS = 10


def make(model_dir: Path, is_streamed: bool, distributed: bool) -> MegatronTrainer:
    """A trainer of one rank."""
    os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
    sections: dict[str, Any] = {
        "model": {"path": str(model_dir), "dtype": "bfloat16"},
        "data": {},
        "rollout": {"num_rollout": 20, "rollout_batch_size": 1, "n_samples_per_prompt": 4},
        "train": {
            **{"global_batch_size": 4, "lr": 1e-3, "weight_decay": 0.1, "lr_warmup_steps": 3},
            "use_distributed_optimizer": distributed,
        },
    }
    config = RunConfig.model_validate(sections)
    return MegatronTrainer(config, model_shape(config.model, model_dir), model_dir, "cuda", streamed=is_streamed)


def steps(trainer: MegatronTrainer, first: int, last: int) -> list[float]:
    """Norms; gradients are noise, and everything leaves the GPU after each step."""
    norms = []
    for number in range(first, last):
        trainer.memory.touched()
        for buffer in trainer.policy.optimizer.model.buffers:
            buffer.grad_data.normal_(generator=torch.Generator("cuda").manual_seed(number))
        norms.append(trainer.policy.optimizer.step())
        trainer.memory.shrink_to(frozenset())
        trainer.memory.grow_to(frozenset(TRAINER_PARTS))
        trainer.memory.settle()
    return norms


@pytest.mark.parametrize("distributed", [False, True])
def test_bits_of_a_resident_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, distributed: bool) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    monkeypatch.setattr(streamed, "PIECE", PIECE)
    model_dir = tiny_model("qwen3-tied", tmp_path / "model", **{**GPU_SIZES, "num_hidden_layers": 3})
    found: dict[bool, Any] = {}
    for is_streamed in (False, True):
        trainer = make(model_dir, is_streamed, distributed)
        norms = steps(trainer, 0, STEPS)
        trainer.save(tmp_path / str(is_streamed))
        norms += steps(trainer, STEPS, STEPS + 2)
        found[is_streamed] = norms, [parameter.clone() for parameter in trainer.weights.parameters.values()]
        trainer.close()
    assert found[True][0] == found[False][0]
    assert all(map(torch.equal, found[True][1], found[False][1]))
    again = make(model_dir, True, distributed)
    before = [parameter.clone() for parameter in again.weights.parameters.values()]
    again.load(tmp_path / "False")
    steps(again, STEPS, STEPS + 2)
    assert all(map(torch.equal, again.weights.parameters.values(), found[False][1]))
    assert not all(map(torch.equal, before, found[False][1]))
    again.close()
