"""Which samples are computed, and what their metrics mean."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from core.algorithm.loss import build_loss
from core.config.sections.algorithm import AlgorithmConfig
from core.megatron.rows.computed import means_of_computed, with_gradient
from core.megatron.rows.tokens import TokenTable
from core.samples import TrainSample

PLAIN = AlgorithmConfig(kl_loss_coef=0.0, entropy_coef=0.0)


def sample(group: int, advantage: float, mask: tuple[int, ...] = (1, 1)) -> TrainSample:
    return TrainSample(group, [1], [2, 3], list(mask), advantage, [-1.0, -1.0])


SAMPLES = [sample(0, 0.0), sample(0, 0.0), sample(1, 1.0), sample(1, -1.0, (0, 0)), sample(2, 0.0), sample(2, 0.5)]


def test_those_with_an_advantage_and_a_token_that_counts() -> None:
    assert with_gradient(SAMPLES, build_loss(PLAIN).teaches) == [2, 5]


@pytest.mark.parametrize("term", ["kl_loss_coef", "entropy_coef"])
def test_all_where_the_loss_has_other_terms(term: str) -> None:
    assert with_gradient(SAMPLES, build_loss(PLAIN.model_copy(update={term: 0.1})).teaches) == list(range(6))


def test_a_token_with_an_advantage_is_enough() -> None:
    per_token = [replace(SAMPLES[0], advantage=[0.0, 0.0]), replace(SAMPLES[2], advantage=[0.0, -0.5])]
    assert with_gradient(per_token, build_loss(PLAIN).teaches) == [1]


def test_the_first_group_where_none_teaches() -> None:
    assert with_gradient([replace(one, advantage=0.0) for one in SAMPLES], build_loss(PLAIN).teaches) == [0, 1]


def test_means_are_over_what_was_computed() -> None:
    weights, gaps = torch.tensor([0.1, 0.1, 0.3, 0.5]), torch.tensor([9.0, 9.0, 1.0, 2.0])
    computed = torch.tensor([False, False, True, True])
    name = "train/train_rollout_logprob_abs_diff"
    metrics = {name: float((weights * gaps)[computed].sum()), "train/pg_loss": 0.7}
    assert means_of_computed(metrics, [name], weights, computed) == {name: pytest.approx((0.3 * 1 + 0.5 * 2) / 0.8)}
    assert means_of_computed(metrics, [name], weights, ~computed & False)[name] == metrics[name]  # nothing counts


def test_tokens_of_samples() -> None:
    table = TokenTable(SAMPLES[:3])
    assert table.of([1]).tolist() == [False, False, True, True, False, False]
