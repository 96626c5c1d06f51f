"""A shape in the two spellings of a HuggingFace `config.json`, written independently of `modelcfg.from_hf`."""

from __future__ import annotations

from typing import Any

from modelcfg import DeltaNet, LatentAttention, ModelShape, RopeScaling, Window, YarnScaling

CLASSES = {"mimo": "MiMo", "minimax_m2": "MiniMaxM2", "qwen3_5": "Qwen3_5", "qwen3_5_moe": "Qwen3_5Moe"}


def _minimax(shape: ModelShape) -> dict[str, Any]:
    return {
        "num_local_experts": shape.num_experts,
        "num_experts_per_tok": shape.experts_per_token,
        "rotary_dim": int(shape.head_dim * shape.rotary_fraction),
        "scoring_func": "sigmoid",
        "use_routing_bias": True,
        "use_qk_norm": True,
        "qk_norm_type": "per_layer",
        "use_mtp": True,
        "num_mtp_modules": shape.carried_layers,
        "mtp_transformer_layers": 1,
        "shared_intermediate_size": 0,
        "attn_type_list": [1] * shape.num_layers,
    }


def _gpt_oss(shape: ModelShape, window: Window) -> dict[str, Any]:
    kinds = ("sliding_attention", "full_attention")
    return {
        "num_local_experts": shape.num_experts,
        "num_experts_per_tok": shape.experts_per_token,
        "experts_per_token": shape.experts_per_token,
        "attention_bias": True,
        "sliding_window": window.size,
        "layer_types": [kinds[layer % 2] for layer in range(shape.num_layers)],
        "swiglu_limit": shape.clamp,
    }


def _next(shape: ModelShape, delta: DeltaNet) -> dict[str, Any]:
    return {
        **({"shared_expert_intermediate_size": shape.shared_ffn_hidden_size} if shape.num_experts else {}),
        "full_attention_interval": delta.attention_every,
        "linear_num_key_heads": delta.key_heads,
        "linear_num_value_heads": delta.value_heads,
        "linear_key_head_dim": delta.key_dim,
        "linear_value_head_dim": delta.value_dim,
        "linear_conv_kernel_dim": delta.taps,
    }


def _latent(shape: ModelShape, latent: LatentAttention) -> dict[str, Any]:
    return {
        "q_lora_rank": latent.query_rank or None,
        "kv_lora_rank": latent.rank,
        "qk_nope_head_dim": shape.head_dim - latent.rotary_dim,
        "qk_rope_head_dim": latent.rotary_dim,
        "v_head_dim": latent.value_dim,
        "head_dim": latent.rotary_dim,
        "scoring_func": "sigmoid",
        "topk_method": "noaux_tc",
        "moe_layer_freq": 1,
    }


def _scaling(shape: ModelShape) -> dict[str, Any] | None:
    scaling = shape.rope_scaling
    if isinstance(scaling, RopeScaling):
        return {"rope_type": "llama3", **scaling.model_dump()}
    if isinstance(scaling, YarnScaling) and not scaling.truncate:  # as gpt-oss has it, sharpened by its factor
        return {"rope_type": "yarn", **scaling.model_dump(exclude={"attention_factor", "logit_factor"})}
    if isinstance(scaling, YarnScaling):  # as DeepSeek-V3 has it, with both kinds of sharpening alike
        said = scaling.model_dump(include={"factor", "beta_fast", "beta_slow", "original_max_position_embeddings"})
        return {"type": "yarn", "mscale": 1.0, "mscale_all_dim": 1.0, **said}
    return None if scaling is None else {"type": "linear", "factor": scaling.factor}


def _seeing(shape: ModelShape, form: dict[str, Any], family: str) -> dict[str, Any]:
    """A model that takes images, whose decoder the form is of."""
    rope = {"rope_type": "default", "mrope_interleaved": True, "mrope_section": [11, 11, 10]}
    rope |= {"rope_theta": form.pop("rope_theta"), "partial_rotary_factor": form["partial_rotary_factor"]}
    for key in (
        "architectures",
        "rope_scaling",
        *(("intermediate_size", "norm_topk_prob") if shape.num_experts else ()),
    ):
        del form[key]
    text = {**form, "model_type": f"{shape.architecture}_text", "attn_output_gate": True, "rope_parameters": rope}
    return {
        "architectures": [f"{family}ForConditionalGeneration"],
        "model_type": shape.architecture,
        "tie_word_embeddings": shape.tied_embeddings,
        "text_config": text,
        "vision_config": {"depth": 12, "hidden_size": 768, "out_hidden_size": shape.hidden_size},
    }


def published_form(shape: ModelShape) -> dict[str, Any]:
    """As on the hub: `rope_theta` beside `rope_scaling`."""
    rope: dict[str, Any] = {"rope_theta": shape.rope_theta, "rope_scaling": _scaling(shape)}
    family = CLASSES.get(shape.architecture) or shape.architecture.title().replace("_", "")
    experts: dict[str, Any] = {}
    if shape.architecture == "minimax_m2":
        experts = _minimax(shape)
    elif shape.window is not None:
        experts = _gpt_oss(shape, shape.window)
    elif shape.router is not None:
        width = shape.ffn_hidden_size
        experts = {
            "intermediate_size": shape.dense_ffn_hidden_size,
            "n_routed_experts": shape.num_experts,
            "n_shared_experts": shape.shared_ffn_hidden_size // width,
            "num_experts_per_tok": shape.experts_per_token,
            "moe_intermediate_size": width,
            "first_k_dense_replace": shape.dense_layers,
            "n_group": shape.router.groups,
            "topk_group": shape.router.groups_per_token,
            "routed_scaling_factor": shape.router.scale,
            "norm_topk_prob": True,
            "num_nextn_predict_layers": shape.carried_layers,
        }
    elif shape.num_experts:
        experts = {
            "num_experts": shape.num_experts,
            "num_experts_per_tok": shape.experts_per_token,
            "moe_intermediate_size": shape.ffn_hidden_size,
            "norm_topk_prob": True,
            "decoder_sparse_step": 1,
            "mlp_only_layers": [],
        }
    form = {
        "architectures": [f"{family}ForCausalLM"],
        "model_type": shape.architecture,
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.ffn_hidden_size,
        "max_position_embeddings": shape.max_position_embeddings,
        "num_attention_heads": shape.num_attention_heads,
        "num_hidden_layers": shape.num_layers,
        "num_key_value_heads": shape.num_query_groups,
        "head_dim": shape.head_dim,
        "rms_norm_eps": shape.norm_eps,
        "tie_word_embeddings": shape.tied_embeddings,
        "vocab_size": shape.vocab_size,
        "hidden_act": "silu",
        **rope,
        **experts,
        **({"partial_rotary_factor": shape.rotary_fraction} if shape.rotary_fraction != 1 else {}),
        **({} if shape.delta is None else _next(shape, shape.delta)),
        **({} if shape.latent is None else _latent(shape, shape.latent)),
        **({"sliding_window": None} if shape.architecture == "mistral" else {}),
        **({"attention_bias": shape.qkv_bias} if shape.architecture.startswith("glm4") else {}),
        **({"mlp_layer_types": None} if shape.architecture == "glm4_moe_lite" else {}),
        **({"use_qk_norm": shape.qk_norm} if shape.architecture == "glm4_moe" else {}),
        **({"num_nextn_predict_layers": shape.carried_layers} if shape.architecture == "mimo" else {}),
    }
    return _seeing(shape, form, family) if family.startswith("Qwen3_5") else form
