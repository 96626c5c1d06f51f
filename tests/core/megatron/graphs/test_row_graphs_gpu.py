"""On a GPU: rows as CUDA graphs give what they give kernel by kernel, each time anew."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from core.config.schema import RunConfig
from core.megatron.graphs import row_graphs
from core.megatron.sizes.graphs import Graphs
from core.megatron.trainer import MegatronTrainer
from core.pretrained.shape import model_shape
from core.samples import TrainSample
from tests.support.tiny_models import GPU_SIZES, tiny_model

pytestmark = pytest.mark.gpu
SIZES = [(20, 90), (30, 60), (300, 20), (40, 600)]  # prompt and response tokens
ENTROPY = {"entropy_coef": 0.01, "kl_loss_coef": 0.01}


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    return tiny_model("qwen3-tied", tmp_path / "model", **{**GPU_SIZES, "num_hidden_layers": 3})


@pytest.fixture
def made(model_dir: Path) -> Iterator[Any]:
    """Makes trainers of one rank."""
    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    rank = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    os.environ.update(rank)
    trainers: list[MegatronTrainer] = []

    def make(graphs: bool, **changes: dict[str, Any]) -> MegatronTrainer:
        for trainer in trainers:
            trainer.close()
        trainers.clear()
        sections: dict[str, Any] = {
            "model": {"path": str(model_dir), "dtype": "bfloat16"},
            "data": {"max_prompt_tokens": 64},
            "rollout": {
                "num_rollout": 8,
                "max_response_tokens": 64,
                "rollout_batch_size": 4,
                "n_samples_per_prompt": 4,
            },
            "train": {"global_batch_size": 16, "lr": 1e-9, **changes.get("train", {})},
            "algorithm": changes.get("algorithm", {}),
        }
        config = RunConfig.model_validate(sections)
        trainers.append(MegatronTrainer(config, model_shape(config.model, model_dir), model_dir, "cuda"))
        if graphs:
            trainers[0].use_graphs(Graphs(4096, all_rows=False))
        return trainers[0]

    yield make
    for trainer in trainers:
        trainer.close()


def samples_of(seed: int, prompt: int, response: int) -> list[TrainSample]:
    """Four groups of four, lengths around those given."""
    generator = torch.Generator().manual_seed(seed)

    def tokens(length: int) -> list[int]:
        return torch.randint(3, 500, (length,), generator=generator).tolist()

    groups = [tokens(prompt + index) for index in range(4)]
    result = []
    for index in range(16):
        length = response - index
        ids, advantage = tokens(length), 1.0 if index % 2 else -0.5
        result.append(TrainSample(index // 4, groups[index // 4], ids, [1] * length, advantage, [-6.0] * length))
    return result


Step = tuple[dict[str, float], torch.Tensor, torch.Tensor]


def steps(trainer: MegatronTrainer, number: int = 3) -> list[Step]:
    """Updates with batches of several sizes, each size again and again: metrics, log-probs, and the whole gradient."""
    found = []
    for turn in range(number):
        for place, size in enumerate(SIZES):
            result = trainer.update(samples_of(10 * turn + place, *size))
            logprobs = torch.tensor([value for values in result.logprobs for value in values])
            found.append((result.metrics, logprobs, trainer.policy.optimizer.model.buffers[0].grad_data.clone()))
    return found


def assert_same(found: list[Step], wanted: list[Step]) -> None:
    """But for what bfloat16 rounds otherwise in rows of another size."""
    for (our_metrics, our_logprobs, ours), (their_metrics, their_logprobs, theirs) in zip(found, wanted, strict=True):
        assert float((our_logprobs - their_logprobs).abs().mean()) < 0.05
        assert our_metrics["perf/train_tokens"] == their_metrics["perf/train_tokens"]
        assert our_metrics["train/loss"] == pytest.approx(their_metrics["train/loss"], rel=2e-2, abs=2e-3)
        assert float((ours - theirs).norm() / theirs.norm()) < 0.05


@pytest.mark.parametrize("changes", [{}, {"train": {"share_prompts": False}}, {"algorithm": ENTROPY}])
def test_graphs_learn_the_same(made: Any, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    replays: list[int] = []
    run_backward = row_graphs._Captured.run_backward

    def counted(self: Any, gradients: Any) -> None:
        replays.append(1)
        run_backward(self, gradients)

    monkeypatch.setattr(row_graphs._Captured, "run_backward", counted)
    wanted = steps(made(graphs=False, **changes))
    assert not replays
    found = steps(made(graphs=True, **changes))
    assert len(replays) >= len(SIZES)
    assert_same(found, wanted)


def test_graphs_made_ahead_serve_the_first_row(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = made(graphs=False).update(samples_of(0, *SIZES[0]))
    trainer = made(graphs=False)
    trainer.use_graphs(Graphs(2048, all_rows=True))
    monkeypatch.setattr(row_graphs, "forward", None)  # nothing is computed kernel by kernel, or captured, any more
    found = trainer.update(samples_of(0, *SIZES[0]))
    assert found.metrics["train/loss"] == pytest.approx(wanted.metrics["train/loss"], rel=2e-2, abs=2e-3)
    assert found.metrics["train/grad_norm"] == pytest.approx(wanted.metrics["train/grad_norm"], rel=3e-2)


def test_what_has_moved_is_captured_again(made: Any) -> None:
    trainer = made(graphs=True)
    samples = samples_of(0, *SIZES[0])
    for _ in range(3):
        trainer.update(samples)
    for parameter in trainer.weights.parameters.values():
        parameter.data = parameter.data.clone()
        parameter.data.zero_()
    found = trainer.policy.log_probs_at(samples, [0])[0]
    assert trainer.update(samples).logprobs[0] == pytest.approx(found, abs=1e-3)


def test_a_failed_capture_is_told_and_done_without(
    made: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = row_graphs.forward

    def asks_the_device(model: Any, tokens: Any, params: Any) -> Any:
        tokens.sum().item()  # no capture allows this
        return real(model, tokens, params)

    wanted = steps(made(graphs=False), 2)
    monkeypatch.setattr(row_graphs, "forward", asks_the_device)
    found = steps(made(graphs=True), 2)
    assert [r.message for r in caplog.records if "no CUDA graph" in r.message]
    assert_same(found, wanted)
    assert torch.rand(3, device="cuda").unique().numel() == 3


def test_where_memory_runs_out_while_graphs_are_made_there_are_none(
    made: Any, caplog: pytest.LogCaptureFixture
) -> None:
    wanted = steps(made(graphs=False), 1)
    trainer = made(graphs=False)
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    little = before + 64 * 2**20
    torch.cuda.set_per_process_memory_fraction(little / torch.cuda.get_device_properties(0).total_memory)
    try:
        trainer.use_graphs(Graphs(4096, all_rows=True))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert [r.message for r in caplog.records if "no memory for all sizes" in r.message or "no CUDA graph" in r.message]
    caplog.clear()
    assert torch.cuda.memory_reserved() <= little
    assert_same(steps(trainer, 1), wanted)
