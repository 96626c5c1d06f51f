from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

import modelcfg
from modelcfg import Mismatch, UnsupportedModelError
from modelcfg.families import families
from tests.support import mimo
from tests.support.hf_forms import published_form

mimo.register()
EVERY_THIRD = ["linear_attention", "linear_attention", "full_attention"] * 8


def transformers_config(name: str, **changes: Any) -> Any:
    form = published_form(modelcfg.load(name))
    form.get("text_config", form).update(changes)
    return AutoConfig.for_model(**form)


@pytest.mark.parametrize("name", modelcfg.names())
def test_transformers_builds_a_few_layers_of_the_same_parameters_biases_and_norms(name: str) -> None:
    """With all their layers they would take minutes; how many there are is in the published number."""
    known = modelcfg.load(name)
    layers = known.dense_layers + (2 if known.delta is None else known.delta.attention_every)
    shape = known.model_copy(update={"num_layers": layers})
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**published_form(shape)))
    assert modelcfg.num_parameters(shape) == sum(p.numel() for p in model.parameters())
    with_attention = 0 if shape.delta is None else shape.delta.attention_every - 1
    layer = model.model.layers[with_attention].self_attn
    if shape.latent is not None:
        assert hasattr(layer, "q_a_proj") == (shape.latent.query_rank > 0)
        assert layer.scaling == pytest.approx(_logit_scale(shape), rel=1e-12)
        assert model.model.rotary_emb.attention_scaling == _turned_scale(shape)
        return
    assert (layer.q_proj.bias is not None, layer.o_proj.bias is not None) == (shape.qkv_bias, shape.biases)
    assert hasattr(layer, "sinks") == shape.sinks
    assert hasattr(layer, "q_norm") == shape.qk_norm


def _logit_scale(shape: modelcfg.ModelShape) -> float:
    sharper = shape.rope_scaling.logit_factor if isinstance(shape.rope_scaling, modelcfg.YarnScaling) else 1.0
    return sharper / shape.head_dim**0.5


def _turned_scale(shape: modelcfg.ModelShape) -> float:
    return shape.rope_scaling.attention_factor if isinstance(shape.rope_scaling, modelcfg.YarnScaling) else 1.0


@pytest.mark.parametrize("name", modelcfg.names())
def test_the_published_form_gives_the_shape(name: str) -> None:
    shape = modelcfg.load(name)
    assert modelcfg.from_hf(published_form(shape), name).model_dump(exclude={"hub"}) == shape.model_dump(
        exclude={"hub"}
    )
    assert modelcfg.compare(shape, published_form(shape)) == []


@pytest.mark.parametrize("name", modelcfg.names())
def test_the_form_that_transformers_saves_gives_the_shape(name: str, tmp_path: Path) -> None:
    transformers_config(name).save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert "rope_parameters" in modelcfg.decoder_config(saved)
    assert modelcfg.compare(modelcfg.load(name), saved) == []


def test_defaults_of_older_files() -> None:
    form = published_form(modelcfg.load("smollm2-135m"))
    for key in ("head_dim", "num_key_value_heads", "rope_theta", "rope_scaling", "tie_word_embeddings"):
        del form[key]
    shape = modelcfg.from_hf(form)
    assert (shape.head_dim, shape.num_query_groups, shape.rope_theta) == (64, 9, 10000.0)
    assert not shape.tied_embeddings


def test_what_a_file_may_leave_out_or_say_without_a_difference() -> None:
    form = published_form(modelcfg.load("qwen2.5-0.5b"))
    del form["hidden_act"]
    assert modelcfg.compare(modelcfg.load("qwen2.5-0.5b"), form | {"attention_bias": True}) == [], "it always has one"
    by_type = form | {"architectures": None, "model_type": "qwen2"}
    assert modelcfg.from_hf(by_type).architecture == "qwen2"


def test_a_window_is_refused_also_where_transformers_would_take_one_unsaid() -> None:
    form = published_form(modelcfg.load("mistral-7b"))
    assert modelcfg.from_hf(form).architecture == "mistral"
    for windowed in (form | {"sliding_window": 4096}, {k: v for k, v in form.items() if k != "sliding_window"}):
        with pytest.raises(UnsupportedModelError, match=r"sliding_window: .* in config.json"):
            modelcfg.from_hf(windowed)


def test_experts_by_their_other_name_and_what_may_be_left_out() -> None:
    shape = modelcfg.load("qwen3-30b-a3b")
    form = published_form(shape) | {"num_experts": None, "num_local_experts": 128, "num_shared_experts": 0}
    form["intermediate_size"] = 6144  # of layers without experts, of which there are none
    for key in ("head_dim", "decoder_sparse_step", "mlp_only_layers"):
        del form[key]
    assert modelcfg.compare(shape, form) == []


@pytest.mark.parametrize(
    ("name", "change", "mismatch"),
    [
        pytest.param("qwen2.5-0.5b", {"num_hidden_layers": 23}, Mismatch("num_layers", 23, 24), id="layers"),
        pytest.param("qwen2.5-0.5b", {"hidden_size": 895}, Mismatch("hidden_size", 895, 896), id="hidden"),
        pytest.param("qwen2.5-0.5b", {"intermediate_size": 1}, Mismatch("ffn_hidden_size", 1, 4864), id="ffn"),
        pytest.param("qwen2.5-0.5b", {"num_attention_heads": 16}, Mismatch("num_attention_heads", 16, 14), id="heads"),
        pytest.param("qwen2.5-0.5b", {"num_key_value_heads": 7}, Mismatch("num_query_groups", 7, 2), id="kv groups"),
        pytest.param("qwen2.5-0.5b", {"head_dim": 32}, Mismatch("head_dim", 32, 64), id="head dim"),
        pytest.param("qwen2.5-0.5b", {"vocab_size": 152064}, Mismatch("vocab_size", 152064, 151936), id="vocab"),
        pytest.param("qwen2.5-0.5b", {"rms_norm_eps": 1e-5}, Mismatch("norm_eps", 1e-5, 1e-6), id="eps"),
        pytest.param("qwen2.5-1.5b", {"rope_theta": 10000.0}, Mismatch("rope_theta", 1e4, 1e6), id="theta"),
        pytest.param(
            "qwen2.5-1.5b",
            {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}},
            Mismatch("rope_theta", 1e4, 1e6),
            id="theta in rope_parameters",
        ),
        pytest.param(
            "qwen2.5-0.5b", {"tie_word_embeddings": False}, Mismatch("tied_embeddings", False, True), id="tied"
        ),
        pytest.param(
            "llama-3.2-1b",
            {"rope_scaling": None},
            Mismatch("rope_scaling", None, modelcfg.load("llama-3.2-1b").model_dump()["rope_scaling"]),
            id="rope scaling",
        ),
    ],
)
def test_each_difference_is_named(name: str, change: dict[str, Any], mismatch: Mismatch) -> None:
    shape = modelcfg.load(name)
    assert modelcfg.compare(shape, published_form(shape) | change) == [mismatch]


def test_a_refusal_in_full() -> None:
    form = published_form(modelcfg.load("smollm2-135m"))
    with pytest.raises(UnsupportedModelError) as other:
        modelcfg.from_hf(form | {"architectures": ["GPT2LMHeadModel"]})
    assert str(other.value) == (
        "found the architecture GPT2LMHeadModel; wanted a model that this project can train: use one of "
        + ", ".join(family.hf_class for family in families().values())
    )
    for change, where in (({"num_key_value_heads": 2}, "shape"), ({"vocab_size": 0}, "vocab_size")):
        with pytest.raises(UnsupportedModelError, match=rf"that contradicts itself \({where}: .*publisher$"):
            modelcfg.from_hf(form | change)


def test_another_architecture_differs_in_all_it_implies() -> None:
    shape = modelcfg.load("qwen2.5-0.5b")
    found = modelcfg.compare(shape, published_form(shape) | {"architectures": ["Qwen3ForCausalLM"]})
    assert [mismatch.field for mismatch in found] == ["architecture", "qkv_bias", "qk_norm"]
    assert str(found[0]) == "architecture: found qwen3, wanted qwen2"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"architectures": ["GPT2LMHeadModel"]}, "the architecture GPT2LMHeadModel", id="gpt2"),
        pytest.param({"architectures": None, "model_type": None}, "the architecture none", id="none"),
        pytest.param({"architectures": None, "model_type": "gpt2"}, "the architecture gpt2", id="model_type"),
        pytest.param(
            {"vocab_size": None, "hidden_size": None}, "config.json without hidden_size, vocab_size", id="keys"
        ),
        pytest.param({"attention_bias": True}, "attention_bias: True", id="output bias"),
        pytest.param({"mlp_bias": True}, "mlp_bias: True", id="feed-forward bias"),
        pytest.param({"use_sliding_window": True}, "use_sliding_window: True", id="window"),
        pytest.param({"hidden_act": "gelu"}, "hidden_act: gelu", id="activation"),
        pytest.param({"rope_scaling": {"type": "yarn", "factor": 4}}, "yarn without original_max_position", id="yarn"),
        pytest.param({"rope_scaling": {"type": "dynamic", "factor": 4}}, "when a sequence grows long", id="dynamic"),
        pytest.param({"rope_scaling": {"type": "longrope", "factor": 4}}, "when a sequence grows long", id="longrope"),
        pytest.param({"rope_scaling": {"rope_type": "odd"}}, "of type odd; wanted", id="unknown"),
        pytest.param({"rope_scaling": {"rope_type": "llama3", "factor": 8}}, "llama3 without", id="llama3"),
        pytest.param({"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor", id="partial"),
        pytest.param({"num_key_value_heads": 2}, "9 attention heads cannot be shared", id="groups"),
        pytest.param({"vocab_size": "many"}, "config.json that contradicts itself (vocab_size", id="type"),
    ],
)
def test_what_a_shape_cannot_express_is_refused(change: dict[str, Any], message: str) -> None:
    form = published_form(modelcfg.load("smollm2-135m")) | change
    with pytest.raises(UnsupportedModelError, match=re.escape(message)):
        modelcfg.from_hf(form)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norm_topk_prob": False}, "norm_topk_prob: False in config.json"),
        ({"tie_word_embeddings": True}, "tie_word_embeddings: True"),
        ({"moe_layer_freq": 2}, "moe_layer_freq: 2"),
        ({"scoring_func": "softmax"}, "scoring_func: softmax"),
        ({"topk_method": "greedy"}, "topk_method: greedy"),
        ({"first_k_dense_replace": 46}, "no layer with experts"),
        ({"n_group": 3}, "1 of 3 groups of the 128 experts"),
        ({"n_group": 8, "topk_group": 9}, "9 of 8 groups"),
        ({"n_group": 128, "topk_group": 64}, "64 of 128 groups"),
        ({"n_group": 64}, "of which the chosen have 8 experts"),
        ({"n_routed_experts": None}, "config.json without n_routed_experts"),
    ],
)
def test_sigmoid_experts_that_a_shape_cannot_express_are_refused(change: dict[str, Any], message: str) -> None:
    form = published_form(modelcfg.load("glm4.5-106b-a12b"))
    with pytest.raises(UnsupportedModelError, match=message):
        modelcfg.from_hf(form | change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer_types": EVERY_THIRD}, "full_attention_interval: 4"),
        ({"layer_types": ["full_attention", "linear_attention"] * 12}, "layer_types: "),
        ({"attn_output_gate": False}, "attn_output_gate: False"),
        ({"output_gate_type": "sigmoid"}, "output_gate_type: sigmoid"),
        ({"attention_bias": True}, "attention_bias: True"),
    ],
)
def test_decoders_with_states_that_a_shape_cannot_express_are_refused(change: dict[str, Any], message: str) -> None:
    form = published_form(modelcfg.load("qwen3.5-0.8b"))
    assert modelcfg.from_hf(form | {"text_config": {**form["text_config"], "output_gate_type": "swish"}})
    with pytest.raises(UnsupportedModelError, match=message):
        modelcfg.from_hf(form | {"text_config": {**form["text_config"], **change}})


def test_what_a_file_says_of_the_whole_model_it_says_of_its_decoder() -> None:
    form = published_form(modelcfg.load("qwen3.5-0.8b"))
    text = {**form["text_config"], "tie_word_embeddings": False}  # transformers and SGLang ask at the top
    assert modelcfg.from_hf(form | {"text_config": text}).tied_embeddings
    told_below = {key: value for key, value in form.items() if key != "tie_word_embeddings"}
    assert modelcfg.from_hf(told_below).tied_embeddings


def test_dense_layers_by_a_list_of_kinds() -> None:
    form = published_form(modelcfg.load("glm4.7-flash-30b-a3b"))
    listed = ["dense"] * 2 + ["sparse"] * 45
    assert modelcfg.from_hf(form | {"mlp_layer_types": listed, "first_k_dense_replace": None}).dense_layers == 2
    with pytest.raises(UnsupportedModelError, match="mlp_layer_types: "):
        modelcfg.from_hf(form | {"mlp_layer_types": listed[::-1]})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attention_bias": True}, "attention_bias: True"),
        ({"rope_interleave": False}, "rope_interleave: False"),
        ({"num_key_value_heads": 4}, "num_key_value_heads: 4"),
        ({"kv_lora_rank": None}, "config.json without kv_lora_rank"),
        ({"qk_nope_head_dim": 0}, "channels that positions do not turn"),
    ],
)
def test_latent_attention_that_a_shape_cannot_express_is_refused(change: dict[str, Any], message: str) -> None:
    form = published_form(modelcfg.load("moonlight-16b-a3b"))
    with pytest.raises(UnsupportedModelError, match=message):
        modelcfg.from_hf(form | change)


def test_sigmoid_experts_by_what_may_be_left_out() -> None:
    shape = modelcfg.load("glm4.5-106b-a12b")
    form = published_form(shape)
    for key in ("n_group", "topk_group", "routed_scaling_factor", "first_k_dense_replace", "n_shared_experts"):
        del form[key]
    for key in ("head_dim", "partial_rotary_factor", "num_nextn_predict_layers", "norm_topk_prob", "use_qk_norm"):
        del form[key]
    assert modelcfg.compare(shape, form) == []
    assert modelcfg.from_hf(form).carried_layers == 0
    all_experts = modelcfg.from_hf(form | {"first_k_dense_replace": 0})
    assert (all_experts.dense_layers, all_experts.dense_ffn_hidden_size) == (0, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attention_bias": True}, "attention_bias: True in config.json"),
        ({"hidden_act": "gelu"}, "hidden_act: gelu in config.json"),
        ({"norm_topk_prob": False}, "norm_topk_prob: False in config.json"),
        ({"norm_topk_prob": None}, "norm_topk_prob"),
        ({"decoder_sparse_step": 2}, "decoder_sparse_step: 2"),
        ({"mlp_only_layers": [0]}, r"mlp_only_layers: \[0\]"),
        ({"tie_word_embeddings": True}, "tie_word_embeddings: True"),
        ({"num_shared_experts": 1}, "num_shared_experts: 1"),
        ({"shared_expert_intermediate_size": 512}, "shared_expert_intermediate_size: 512"),
        ({"num_experts": 0, "num_experts_per_tok": 0}, "num_experts: 0"),
        ({"num_experts": None}, "config.json without num_experts;"),
        ({"moe_intermediate_size": None}, "config.json without moe_intermediate_size"),
        ({"num_experts_per_tok": None}, "config.json without num_experts_per_tok"),
        ({"num_experts_per_tok": 200}, "config.json that contradicts itself"),
    ],
)
def test_experts_that_a_shape_cannot_express_are_refused(change: dict[str, Any], message: str) -> None:
    form = published_form(modelcfg.load("qwen3-30b-a3b"))
    with pytest.raises(UnsupportedModelError, match=message):
        modelcfg.from_hf(form | change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rotary_dim": None}, "config.json without rotary_dim"),
        ({"rope_parameters": {"partial_rotary_factor": 1.0}}, "partial_rotary_factor: 1.0 in config.json"),
        ({"use_qk_norm": None}, "use_qk_norm: None"),
        ({"qk_norm_type": "per_head"}, "qk_norm_type: per_head"),
        ({"use_routing_bias": False}, "use_routing_bias: False"),
        ({"scoring_func": "softmax"}, "scoring_func: softmax"),
        ({"shared_intermediate_size": 512}, "shared_intermediate_size: 512"),
        ({"attn_type_list": [0] + [1] * 61}, "attn_type_list: "),
        ({"tie_word_embeddings": True}, "tie_word_embeddings: True"),
        ({"num_local_experts": 0, "num_experts_per_tok": 0}, "contradicts itself"),
    ],
)
def test_what_an_engine_would_compute_otherwise_is_refused(change: dict[str, Any], message: str) -> None:
    form = published_form(modelcfg.load("minimax-m2-229b-a10b"))
    with pytest.raises(UnsupportedModelError, match=message):
        modelcfg.from_hf(form | change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attention_bias": False}, "attention_bias: False in config.json"),
        ({"layer_types": ["full_attention"] * 24}, "layer_types: "),
        ({"swiglu_limit": 6.0}, "swiglu_limit: 6.0"),
        ({"tie_word_embeddings": True}, "tie_word_embeddings: True"),
        ({"rope_scaling": None}, "rope_parameters: "),
        ({"num_local_experts": None}, "config.json without num_local_experts"),
        ({"num_local_experts": 0, "num_experts_per_tok": 0}, "contradicts itself"),
    ],
)
def test_windows_and_sinks_that_a_shape_cannot_express_are_refused(change: dict[str, Any], message: str) -> None:
    form = published_form(modelcfg.load("gpt-oss-20b"))
    with pytest.raises(UnsupportedModelError, match=message):
        modelcfg.from_hf(form | change)


def test_every_other_layer_sees_a_window() -> None:
    shape = modelcfg.load("gpt-oss-20b")
    assert [shape.window_of(layer) for layer in range(4)] == [128, None, 128, None]
    form = {key: value for key, value in published_form(shape).items() if key not in ("layer_types", "swiglu_limit")}
    assert modelcfg.compare(shape, form) == []
    for change, message in (
        ({"latent": modelcfg.LatentAttention(rank=8, rotary_dim=4, value_dim=8)}, "wanted "),
        ({"qkv_bias": False}, "wanted experts alone in all layers, and qkv_bias"),
        ({"shared_ffn_hidden_size": 8}, "wanted experts alone in all layers"),
    ):
        with pytest.raises(ValueError, match=message):
            modelcfg.ModelShape.model_validate(shape.model_dump() | change)


def test_layers_behind_are_counted_where_they_are_used() -> None:
    form = published_form(modelcfg.load("minimax-m2-229b-a10b"))
    assert modelcfg.from_hf(form).carried_layers == 3
    assert modelcfg.from_hf(form | {"use_mtp": False}).carried_layers == 0
    assert modelcfg.is_carried(modelcfg.load("mimo-7b"), "model.mtp_layers.0.input_proj.weight")
    assert not modelcfg.is_carried(modelcfg.load("mimo-7b"), "model.layers.36.mlp.up_proj.weight")


def test_a_norm_over_all_heads_needs_them_on_one_rank() -> None:
    fields = modelcfg.load("qwen3-8b").model_dump() | {"qk_norm_whole": True}
    with pytest.raises(ValueError, match="qk_norm_whole: wanted qk_norm, and experts"):
        modelcfg.ModelShape.model_validate(fields)
