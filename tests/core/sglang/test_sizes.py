from __future__ import annotations

import pytest

import modelcfg
from core.pretrained.few_bits import FEW_BITS
from core.sglang.engine_sizes import EngineFacts, cpu_cache, gpu_cache, kv_token_bytes, weight_bytes
from core.sglang.launch import CPU_TOTAL_TOKENS
from modelcfg.families import families

GIB = 2**30


def test_a_token_of_4b_is_a_key_and_a_value_per_layer_and_group() -> None:
    assert kv_token_bytes(modelcfg.load("qwen3-4b"), 2, 1) == 2 * 36 * 8 * 128 * 2


@pytest.mark.parametrize(("ranks", "groups"), [(1, 8), (4, 2), (8, 1), (16, 1)])
def test_groups_are_shared_out_and_then_repeated(ranks: int, groups: int) -> None:
    assert kv_token_bytes(modelcfg.load("qwen3-8b"), 2, ranks) == 2 * 36 * groups * 128 * 2


def test_weights_of_all_ranks_are_the_model_and_the_norms_again() -> None:
    shape = modelcfg.load("qwen3-8b")
    norms = modelcfg.parameter_parts(shape)["norms"]
    assert weight_bytes(EngineFacts(shape, 2, 1)) == 2 * modelcfg.num_parameters(shape)
    every = 2 * (modelcfg.num_parameters(shape) + 3 * norms)
    assert 4 * weight_bytes(EngineFacts(shape, 2, 4)) == pytest.approx(every, abs=8)


def test_linear_layers_in_fp8_take_a_byte_and_a_factor_for_each_block() -> None:
    shape = modelcfg.load("qwen3-8b")
    hidden, ffn, vocabulary = 4096, 12288, 151936
    linear = 36 * hidden * (4096 + 2 * 1024 + 4096 + 3 * ffn)
    others = 2 * vocabulary * hidden + hidden * (2 * 36 + 1) + 36 * 2 * 128
    fp8 = EngineFacts(shape, 2, few_bits=FEW_BITS["fp8"])
    assert weight_bytes(fp8) == 2 * others + linear + 4 * linear // 128**2
    whole, packed = (gpu_cache(engine, 40 * GIB, None).num_bytes for engine in (EngineFacts(shape, 2), fp8))
    assert packed - whole == pytest.approx(linear, rel=1e-3)
    assert gpu_cache(EngineFacts(shape, 2, 1, kv_bytes=1), 40 * GIB, None).token_bytes == kv_token_bytes(shape, 1, 1)


def test_linear_layers_in_int8_take_a_byte_and_a_factor_for_each_row() -> None:
    shape = modelcfg.load("qwen3-8b")
    hidden, ffn, vocabulary = 4096, 12288, 151936
    of_rows, of_columns = 36 * (4096 + 2 * 1024 + 2 * ffn), 36 * 2 * hidden  # of a layer: q, k, v, gate, up; o, down
    linear = 36 * hidden * (4096 + 2 * 1024 + 4096 + 3 * ffn)
    others = 2 * vocabulary * hidden + hidden * (2 * 36 + 1) + 36 * 2 * 128
    one, four = (EngineFacts(shape, 2, ranks, few_bits=FEW_BITS["int8"]) for ranks in (1, 4))
    assert weight_bytes(one) == 2 * others + linear + 4 * (of_rows + of_columns)
    saved = weight_bytes(EngineFacts(shape, 2, 4)) - weight_bytes(four)
    assert saved == pytest.approx(linear // 4 - 4 * (of_rows // 4 + of_columns), abs=8)


def test_what_makes_few_numbers_of_a_token_is_on_every_rank() -> None:
    shape = modelcfg.load("deepseek-v3-671b-a37b")
    replicated = [
        weight.numel
        for layer in range(shape.num_layers)
        for weight in families()[shape.architecture].layer(shape, layer)
        if weight.kind == "replicated" and not weight.fixed
    ]
    whole = sum(replicated) + shape.hidden_size  # the last norm
    every = 2 * (modelcfg.num_parameters(shape) + 7 * whole)
    assert 8 * weight_bytes(EngineFacts(shape, 2, 8)) == pytest.approx(every, abs=16)
    few = shape.num_layers * shape.hidden_size * (shape.latent.query_rank + shape.latent.rank + shape.latent.rotary_dim)
    packed = few + (modelcfg.matrix_elements(shape) - few) // 8
    saved = weight_bytes(EngineFacts(shape, 2, 8)) - weight_bytes(EngineFacts(shape, 2, 8, few_bits=FEW_BITS["fp8"]))
    assert saved == pytest.approx(packed * (1 - 4 / 128**2), abs=16)


def test_the_cache_takes_what_the_weights_leave() -> None:
    shape = modelcfg.load("qwen3-4b")
    engine = EngineFacts(shape, 2)
    cache = gpu_cache(engine, 40 * GIB, None)
    assert 0 <= 40 * GIB - weight_bytes(engine) - cache.num_bytes < cache.token_bytes
    assert cache.samples(1000) == cache.tokens // 1000
    assert gpu_cache(engine, 40 * GIB, 5000).tokens == 5000
    assert gpu_cache(engine, 5 * GIB, None).tokens == 0


def test_groups_of_ranks_have_the_whole_attention_and_samples_of_their_own() -> None:
    shape = modelcfg.load("qwen3-30b-a3b")
    parts = modelcfg.parameter_parts(shape)
    more = 2 * (parts["attention"] + parts["embedding"]) * 3 // 4  # of 4 ranks each had a quarter
    alone, grouped = (EngineFacts(shape, 2, 4, groups=groups) for groups in (1, 4))
    assert weight_bytes(grouped) - weight_bytes(alone) == pytest.approx(more, abs=8)
    one, four = (gpu_cache(engine, 40 * GIB, None) for engine in (alone, grouped))
    assert four.token_bytes == kv_token_bytes(shape, 2, 1) == 4 * one.token_bytes
    assert 0 <= 40 * GIB - weight_bytes(grouped) - four.num_bytes < four.token_bytes
    assert gpu_cache(grouped, 40 * GIB, 1500).samples(1000) == 4, "1,500 tokens are of each group"


def test_groups_of_latent_attention_have_room_for_more_samples() -> None:
    """Its cache is not cut over ranks: without groups all keep the same."""
    shape = modelcfg.load("deepseek-v3-671b-a37b")
    one, eight = (gpu_cache(EngineFacts(shape, 2, 16, groups=groups), 110 * GIB, None) for groups in (1, 8))
    assert eight.token_bytes == one.token_bytes
    assert 5 * one.tokens < eight.tokens < 8 * one.tokens
    few, many = (weight_bytes(EngineFacts(shape, 2, 16, groups=groups, few_bits=FEW_BITS["fp8"])) for groups in (1, 8))
    assert few < many < weight_bytes(EngineFacts(shape, 2, 16, groups=8))


def test_a_cpu_engine_has_a_fixed_cache() -> None:
    shape = modelcfg.load("smollm2-135m")
    assert cpu_cache(EngineFacts(shape, 4, 1), None).tokens == CPU_TOTAL_TOKENS
    assert cpu_cache(EngineFacts(shape, 4, 1), 512).tokens == 512
    groups = cpu_cache(EngineFacts(shape, 4, 1, groups=2), 512)
    assert (groups.tokens, groups.num_bytes) == (1024, 1024 * groups.token_bytes), "in the memory of one node"


@pytest.mark.parametrize("ranks", [1, 8])
def test_latent_attention_keeps_what_keys_and_values_are_made_of_on_every_rank(ranks: int) -> None:
    assert kv_token_bytes(modelcfg.load("deepseek-v3-671b-a37b"), 2, ranks) == 61 * (512 + 64) * 2


def test_layers_with_a_state_keep_no_keys_and_states_take_their_share() -> None:
    shape = modelcfg.load("qwen3-next-80b-a3b")
    assert kv_token_bytes(shape, 2, 1) == 2 * 12 * 2 * 256 * 2
    left = 200 * GIB - weight_bytes(EngineFacts(shape, 2, 1))
    assert gpu_cache(EngineFacts(shape, 2, 1), 200 * GIB, None).num_bytes == pytest.approx(left / 1.9, rel=1e-5)
