"""The learning-rate schedule by hand."""

from __future__ import annotations

import pytest

from core.config.sections.train import TrainConfig
from core.megatron.state.optimizer import learning_rate


def _rates(total: int, **settings: object) -> list[float]:
    config = TrainConfig.model_validate({"global_batch_size": 1, "lr": 1.0, **settings})
    return [learning_rate(config, step, total) for step in range(total)]


def test_constant() -> None:
    assert _rates(3) == [1.0, 1.0, 1.0]


def test_warmup_rises_to_the_full_rate() -> None:
    assert _rates(5, lr_warmup_steps=4) == [0.25, 0.5, 0.75, 1.0, 1.0]


def test_linear_goes_from_the_rate_towards_the_minimum() -> None:
    assert _rates(4, lr_schedule="linear", min_lr=0.2) == pytest.approx([1.0, 0.8, 0.6, 0.4])


def test_cosine_with_warmup() -> None:
    assert _rates(6, lr_schedule="cosine", lr_warmup_steps=2) == pytest.approx(
        [0.5, 1.0, 1.0, 0.85355, 0.5, 0.14645], abs=1e-5
    )


def test_never_below_the_minimum() -> None:
    config = TrainConfig(global_batch_size=1, lr=1.0, min_lr=0.1, lr_schedule="cosine")
    assert learning_rate(config, 50, 10) == pytest.approx(0.1)


def test_a_schedule_of_its_own_length_stays_at_its_end() -> None:
    rates = _rates(8, lr_schedule="linear", min_lr=0.2, lr_warmup_steps=2, lr_decay_steps=6)
    assert rates == pytest.approx([0.5, 1.0, 1.0, 0.8, 0.6, 0.4, 0.2, 0.2])
