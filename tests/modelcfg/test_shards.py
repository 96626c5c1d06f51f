from __future__ import annotations

import pytest

import modelcfg
from modelcfg.shards import EMBEDDING, EXPERTS, OUTPUT, rank_parameters
from modelcfg.stages import Stages


@pytest.mark.parametrize("name", modelcfg.names())
def test_one_rank_has_every_parameter_once(name: str) -> None:
    shape = modelcfg.load(name)
    assert sum(rank_parameters(shape).values()) == modelcfg.num_parameters(shape)


SMALL = modelcfg.ModelShape(
    name="small",
    architecture="qwen3",
    num_layers=2,
    hidden_size=8,
    ffn_hidden_size=12,
    num_attention_heads=4,
    num_query_groups=2,
    head_dim=3,
    vocab_size=10,
    norm_eps=1e-6,
    rope_theta=1e4,
    tied_embeddings=False,
    qkv_bias=True,
    qk_norm=True,
    max_position_embeddings=64,
)
ATTENTION = {  # of one of two tensor-parallel ranks
    "input_layernorm.weight": 8,
    "self_attention.linear_proj.weight": 8 * 12 // 2,
    "self_attention.linear_qkv.weight": (12 + 6 + 6) // 2 * 8,
    "self_attention.linear_qkv.bias": (12 + 6 + 6) // 2,
    "self_attention.q_layernorm.weight": 3,
    "self_attention.k_layernorm.weight": 3,
    "pre_mlp_layernorm.weight": 8,
}


def test_parameters_have_megatrons_names_and_order() -> None:
    layer = ATTENTION | {"mlp.linear_fc1.weight": 2 * 6 * 8, "mlp.linear_fc2.weight": 6 * 8}
    wanted = {
        "embedding.word_embeddings.weight": 5 * 8,
        **{f"decoder.layers.{index}.{name}": count for index in range(2) for name, count in layer.items()},
        "decoder.final_layernorm.weight": 8,
        "output_layer.weight": 5 * 8,
    }
    found = rank_parameters(SMALL, tensor_parallel=2)
    assert list(found.items()) == list(wanted.items())
    assert {type(count) for count in found.values()} == {int}


def test_parameters_of_experts_have_megatrons_names_and_order() -> None:
    shape = SMALL.model_copy(
        update={"architecture": "qwen3_moe", "num_experts": 4, "experts_per_token": 2, "tied_embeddings": True}
    )
    layer = ATTENTION | {"mlp.router.weight": 4 * 8}
    for expert in range(2):
        layer[f"mlp.experts.local_experts.{expert}.linear_fc1.weight"] = 2 * 12 * 8  # not cut
        layer[f"mlp.experts.local_experts.{expert}.linear_fc2.weight"] = 12 * 8
    last = {f"decoder.layers.0.{name}": count for name, count in layer.items()}
    last |= {"decoder.final_layernorm.weight": 8, "output_layer.weight": 5 * 8}
    found = rank_parameters(shape, tensor_parallel=2, stages=Stages(2), stage=1, expert_parallel=2)
    assert list(found.items()) == list(last.items())


@pytest.mark.parametrize("size", [2, 4, 8])
@pytest.mark.parametrize("name", ["qwen3-8b", "llama-3.1-8b"])
def test_tensor_parallel_ranks_repeat_the_norms_alone(name: str, size: int) -> None:
    shape = modelcfg.load(name)
    whole, part = rank_parameters(shape), rank_parameters(shape, tensor_parallel=size)
    norms = sum(count for parameter, count in whole.items() if "norm" in parameter)
    assert size * sum(part.values()) == sum(whole.values()) + (size - 1) * norms


def test_stages_share_the_layers_and_repeat_a_tied_embedding() -> None:
    shape = modelcfg.load("qwen3-4b")
    stages = [rank_parameters(shape, stages=Stages(4), stage=stage) for stage in range(4)]
    repeated = shape.vocab_size * shape.hidden_size
    assert sum(sum(stage.values()) for stage in stages) == modelcfg.num_parameters(shape) + repeated
    assert [EMBEDDING in stage for stage in stages] == [True, False, False, False]
    assert [OUTPUT in stage for stage in stages] == [False, False, False, True]


def test_a_vocabulary_that_does_not_divide_is_padded() -> None:
    shape = modelcfg.load("qwen3-0.6b").model_copy(update={"vocab_size": 1001})
    assert rank_parameters(shape, tensor_parallel=4)[EMBEDDING] == 251 * shape.hidden_size


def test_experts_are_cut_over_ranks_of_their_own_number() -> None:
    shape = modelcfg.load("qwen3-30b-a3b")
    whole, part, alone = (rank_parameters(shape, 4, expert_parallel=2, expert_tensor_parallel=cut) for cut in (1, 4, 2))
    assert list(whole) == list(part) == list(alone)
    for name, count in whole.items():
        times = (4, 2) if EXPERTS in name else (1, 1)
        assert (part[name] * times[0], alone[name] * times[1]) == (count, count), name


@pytest.mark.parametrize("size", [2, 8, 128])
def test_expert_parallel_ranks_share_the_experts_alone(size: int) -> None:
    shape = modelcfg.load("qwen3-30b-a3b")
    whole, part = rank_parameters(shape), rank_parameters(shape, expert_parallel=size)
    rest = sum(count for name, count in whole.items() if EXPERTS not in name)
    assert size * (sum(part.values()) - rest) == sum(whole.values()) - rest
