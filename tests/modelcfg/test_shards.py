from __future__ import annotations

import pytest

import modelcfg
from modelcfg.shards import EMBEDDING, EXPERTS, OUTPUT, rank_parameters


@pytest.mark.parametrize("name", modelcfg.names())
def test_one_rank_has_every_parameter_once(name: str) -> None:
    shape = modelcfg.load(name)
    assert sum(rank_parameters(shape).values()) == modelcfg.num_parameters(shape)


@pytest.mark.parametrize("size", [2, 4, 8])
@pytest.mark.parametrize("name", ["qwen3-8b", "llama-3.1-8b"])
def test_tensor_parallel_ranks_repeat_the_norms_alone(name: str, size: int) -> None:
    shape = modelcfg.load(name)
    whole, part = rank_parameters(shape), rank_parameters(shape, tensor_parallel=size)
    norms = sum(count for parameter, count in whole.items() if "norm" in parameter)
    assert size * sum(part.values()) == sum(whole.values()) + (size - 1) * norms


def test_stages_share_the_layers_and_repeat_a_tied_embedding() -> None:
    shape = modelcfg.load("qwen3-4b")
    stages = [rank_parameters(shape, pipeline_parallel=4, stage=stage) for stage in range(4)]
    repeated = shape.vocab_size * shape.hidden_size
    assert sum(sum(stage.values()) for stage in stages) == modelcfg.num_parameters(shape) + repeated
    assert [EMBEDDING in stage for stage in stages] == [True, False, False, False]
    assert [OUTPUT in stage for stage in stages] == [False, False, False, True]


def test_a_vocabulary_that_does_not_divide_is_padded() -> None:
    shape = modelcfg.load("qwen3-0.6b").model_copy(update={"vocab_size": 1001})
    assert rank_parameters(shape, tensor_parallel=4)[EMBEDDING] == 251 * shape.hidden_size


@pytest.mark.parametrize("size", [2, 8, 128])
def test_expert_parallel_ranks_share_the_experts_alone(size: int) -> None:
    shape = modelcfg.load("qwen3-30b-a3b")
    whole, part = rank_parameters(shape), rank_parameters(shape, expert_parallel=size)
    rest = sum(count for name, count in whole.items() if EXPERTS not in name)
    assert size * (sum(part.values()) - rest) == sum(whole.values()) - rest
