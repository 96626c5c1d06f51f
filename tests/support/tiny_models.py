"""Tiny random models in HuggingFace format, for tests that need a real checkpoint.

`tiny_model("qwen3", tmp_path / "m")` writes config.json, model.safetensors (float32) and generation_config.json, about
0.5 MB, and returns the directory. There is no tokenizer: tests speak in token ids below `VOCAB_SIZE`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from copy import deepcopy
from pathlib import Path
from typing import Any

VOCAB_SIZE = 512
EOS_TOKEN_ID = 2
# sizes that CUDA kernels take, for `tiny_model`
GPU_SIZES = {"hidden_size": 256, "head_dim": 64, "intermediate_size": 512, "num_hidden_layers": 4}
KINDS = ("llama", "llama-tied", "qwen2", "qwen2-tied", "qwen3", "qwen3-tied")
POST_NORMS = "glm4"  # with biases on query, key and value, too
CARRIES = "mimo"  # as Qwen2; a file may have heads for several tokens beside it
OWN_HEADS = "mistral"  # as Llama, with a head dim that is not hidden / heads
EXPERTS = "qwen3_moe"  # with experts, for which few layouts are possible
SIGMOID_EXPERTS = ("glm4_moe", "deepseek_v3")  # with a dense layer, a feed-forward of all tokens, a router's bias
STATEFUL = "qwen3_next"  # states in every other layer, gated attention in the others, experts with a gated shared one
SEEING = "qwen3_5"  # states in three of four layers, with projections of their own, and what sees images beside it
SEEING_EXPERTS = "qwen3_5_moe"  # the same with experts and a gated shared one
SINKS = "gpt_oss"  # sinks, a window in every other layer, biases, all experts of a layer in one tensor
WHOLE_NORMS = "minimax_m2"  # experts and a router's bias in all layers, norms over all heads at once
LATENT = ("deepseek_v3", "glm4_moe_lite")  # the same, with keys and values by way of few numbers
# what is carried for several tokens, where it is not a layer behind the last
BESIDE = {CARRIES: "model.mtp_layers.0.", STATEFUL: "mtp.", SEEING: "mtp.", SEEING_EXPERTS: "mtp."}
PICTURES = {"image_processor_type": "Qwen2VLImageProcessorFast", "processor_class": "Qwen3VLProcessor"}  # of such files
EYE = "model.visual."  # what the names of tensors that see images begin with
YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "mscale": 1.0,
    "mscale_all_dim": 0.7,
    "original_max_position_embeddings": 16,
}
UNTRUNCATED = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "beta_fast": 8.0,
    "beta_slow": 1.0,
    "truncate": False,
    "original_max_position_embeddings": 64,
}
HALF_TURNED = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}


def tiny_config(kind: str, **changes: Any) -> Any:
    """transformers' config of one of the kinds above; `changes` override single fields.

    Grouped attention (4 heads, 2 groups) everywhere; Qwen3 and Mistral have a head dim that is not hidden / heads.
    """
    from transformers import (
        DeepseekV3Config,
        Glm4Config,
        Glm4MoeConfig,
        Glm4MoeLiteConfig,
        GptOssConfig,
        LlamaConfig,
        MiniMaxM2Config,
        MistralConfig,
        Qwen2Config,
        Qwen3_5Config,
        Qwen3_5MoeConfig,
        Qwen3Config,
        Qwen3MoeConfig,
        Qwen3NextConfig,
    )

    from tests.support.mimo import register

    family, _, tied = kind.partition("-")
    fields: dict[str, Any] = {
        "vocab_size": VOCAB_SIZE,
        "hidden_size": 64,
        "intermediate_size": 160,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5,
        "initializer_range": 0.1,  # far from uniform, so that a wrong weight shows in the log-probs
        "tie_word_embeddings": tied == "tied",
        "bos_token_id": 1,
        "eos_token_id": EOS_TOKEN_ID,
        "dtype": "float32",
    }
    if family == "glm4":
        fields |= {"pad_token_id": None, "head_dim": 16, "partial_rotary_factor": 0.5}
    if family in (*SIGMOID_EXPERTS, *LATENT):
        fields |= {"n_routed_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 48, "n_shared_experts": 1}
        fields |= {"n_group": 4, "topk_group": 2, "first_k_dense_replace": 1, "routed_scaling_factor": 2.5}
        fields |= {"norm_topk_prob": True, "num_hidden_layers": 4}
    if family == "glm4_moe":
        fields |= {"head_dim": 32, "use_qk_norm": True, "attention_bias": True}
    if family in LATENT:  # transformers' norms of few numbers have this epsilon, whatever is said
        fields |= {"q_lora_rank": 40, "kv_lora_rank": 24, "qk_nope_head_dim": 20, "qk_rope_head_dim": 12}
        fields |= {"v_head_dim": 16, "num_key_value_heads": 4, "rms_norm_eps": 1e-6}
        fields |= {"rope_parameters": YARN, "n_shared_experts": 2}
        fields |= {"moe_layer_freq": 1, "topk_method": "noaux_tc", "scoring_func": "sigmoid"}  # which SGLang asks for
    if family == "minimax_m2":  # what transformers leaves aside, SGLang reads
        fields |= {"head_dim": 32, "num_local_experts": 8, "num_experts_per_tok": 3, "intermediate_size": 64}
        fields |= {"rotary_dim": 16, "use_qk_norm": True, "use_routing_bias": True, "scoring_func": "sigmoid"}
        fields |= {"rope_parameters": HALF_TURNED}
    if family == SINKS:
        fields |= {"head_dim": 24, "num_local_experts": 8, "num_experts_per_tok": 3, "intermediate_size": 48}
        fields |= {"sliding_window": 5, "num_hidden_layers": 4, "rope_parameters": UNTRUNCATED}
    if family == "mistral":
        fields |= {"head_dim": 24, "sliding_window": None}
    if family.startswith("qwen3"):
        fields["head_dim"] = 32
    if family == "qwen3_moe":
        fields |= {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 48, "norm_topk_prob": True}
    if family == "qwen3_next":
        fields |= {"num_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 48, "norm_topk_prob": True}
        fields |= {"shared_expert_intermediate_size": 40, "num_hidden_layers": 4, "full_attention_interval": 2}
        fields |= {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 24}
        fields |= {"linear_value_head_dim": 16}
    if family == SEEING:
        return Qwen3_5Config(**_seeing(fields, changes))
    if family == SEEING_EXPERTS:
        fields |= {"num_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 48}
        fields |= {"shared_expert_intermediate_size": 40}
        del fields["intermediate_size"]
        return Qwen3_5MoeConfig(**_seeing(fields, changes))
    classes = {
        "deepseek_v3": DeepseekV3Config,
        "glm4": Glm4Config,
        "glm4_moe": Glm4MoeConfig,
        "glm4_moe_lite": Glm4MoeLiteConfig,
        SINKS: GptOssConfig,
        "llama": LlamaConfig,
        "mimo": register(),
        "minimax_m2": MiniMaxM2Config,
        "mistral": MistralConfig,
        "qwen2": Qwen2Config,
        "qwen3": Qwen3Config,
        "qwen3_moe": Qwen3MoeConfig,
        "qwen3_next": Qwen3NextConfig,
    }
    config_class = classes[family]
    return config_class(**deepcopy(fields | changes))  # it writes into what it is given


def _seeing(fields: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Settings of a model that takes images: those of the decoder one level down, and a very small eye."""
    states = {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 24}
    fields = {**fields, **states, "linear_value_head_dim": 16, "num_hidden_layers": 4, **changes}
    quarter = fields["head_dim"] // 32  # of the positions' frequencies
    positions = {"partial_rotary_factor": 0.25, "mrope_interleaved": True}
    positions["mrope_section"] = [fields["head_dim"] // 8 - 2 * quarter, quarter, quarter]
    rope = {"rope_type": "default", "rope_theta": 10000.0, **fields.pop("rope_parameters", {}), **positions}
    text = {**fields, "rope_parameters": rope}
    eye = {"depth": 1, "hidden_size": 16, "intermediate_size": 24, "num_heads": 2, "patch_size": 4}
    eye |= {"out_hidden_size": fields["hidden_size"], "num_position_embeddings": 16}
    top = {key: fields[key] for key in ("tie_word_embeddings", "dtype")}
    return {"text_config": text, "vision_config": eye, **top}


def tiny_model(kind: str, directory: Path, seed: int = 0, **changes: Any) -> Path:
    """Write a random model of `kind` to `directory` and return the directory.

    All parameters are random, norms and biases too, so that a swapped or forgotten one shows.
    """
    import torch

    config = tiny_config(kind, **changes)
    generator = torch.Generator().manual_seed(seed)
    model = _class_for(config.model_type).from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.empty_like(parameter).normal_(0.0, 0.1, generator=generator)
            centred = (
                kind.startswith((STATEFUL, SEEING))
                and not name.startswith(EYE)
                and not name.endswith("linear_attn.norm.weight")
            )
            parameter.copy_(1.0 + noise if name.endswith("norm.weight") and not centred else noise)
        for name, buffer in model.named_buffers():
            if name.endswith("e_score_correction_bias"):  # as far apart as the scores
                buffer.normal_(0.0, 0.3, generator=generator)
    directory.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(directory)
    if kind.startswith(SEEING):
        (directory / "preprocessor_config.json").write_text(json.dumps(PICTURES))
    return directory


def tiny_models(kinds: Iterable[str], folder: Path, **changes: Any) -> dict[str, str]:
    """The directory, in the folder, of a `tiny_model` of each kind."""
    return {kind: str(tiny_model(kind, folder / kind, **changes)) for kind in kinds}


def reference_model(directory: Path) -> Any:
    """transformers' model of a directory, in float32; what sees images is not trained."""
    import torch

    model_type = json.loads((directory / "config.json").read_text())["model_type"]
    model = _class_for(model_type).from_pretrained(directory, dtype=torch.float32)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.startswith(EYE))
    return model


def _class_for(model_type: str) -> Any:
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    return AutoModelForImageTextToText if model_type.startswith(SEEING) else AutoModelForCausalLM


def with_stacked_experts(directory: Path) -> Path:
    """Give the experts of each layer the form of the publisher's files: a tensor for gate and up, and one for down."""
    import torch
    from safetensors.torch import load_file, save_file

    file = directory / "model.safetensors"
    tensors = load_file(file)
    begins = sorted({name.partition("experts.0.")[0] for name in tensors if "experts.0." in name})
    for begin in begins:
        numbers = range(sum(name.startswith(f"{begin}experts.") for name in tensors) // 3)
        gate, up, down = (
            torch.stack([tensors.pop(f"{begin}experts.{number}.{x}_proj.weight") for number in numbers])
            for x in ("gate", "up", "down")
        )
        tensors |= {f"{begin}experts.gate_up_proj": torch.cat([gate, up], 1), f"{begin}experts.down_proj": down}
    save_file(tensors, file, {"format": "pt"})
    return directory


def with_layer_behind(directory: Path) -> Path:
    """Give a model two tensors of a layer for predicting several tokens, of other types than its own."""
    import torch
    from safetensors.torch import load_file, save_file

    config = json.loads((directory / "config.json").read_text())
    begin = BESIDE.get(config["model_type"]) or f"model.layers.{config.get('num_hidden_layers')}."
    more = {f"{begin}eh_proj.weight": torch.rand(4, 8).bfloat16(), f"{begin}enorm.weight": torch.rand(3).half()}
    file = directory / "model.safetensors"
    save_file(load_file(file) | more, file, {"format": "pt"})
    (directory / "config.json").write_text(json.dumps(config | {"num_nextn_predict_layers": 1}))
    return directory
