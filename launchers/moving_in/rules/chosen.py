"""Which parameters are trained: slime's expressions are over Megatron's names, a run file's over HuggingFace's."""

from __future__ import annotations

import re

from launchers.moving_in.draft import Draft
from launchers.moving_in.flags import Flag, Flags

# a part of Megatron's names -> HuggingFace's; the first that fits counts
RENAMED = {
    r"experts\\?\.linear_fc1": "experts.*(gate|up)_proj",
    r"experts\\?\.linear_fc2": "experts.*down_proj",
    r"mlp\\?\.router|router": r"mlp\\.gate\\.",
    "self_attention": "self_attn",
    "linear_qkv": "[qkv]_proj",
    "linear_proj": "o_proj",
    "linear_fc1": "(gate|up)_proj",
    "linear_fc2": "down_proj",
    "word_embeddings|embedding": "embed_tokens",
    "output_layer": "lm_head",
    "pre_mlp_layernorm": "post_attention_layernorm",
    "final_layernorm": "model.norm",
    "([qk])_layernorm": r"\1_norm",
    "decoder": "model",
    # the same in both
    **dict.fromkeys(("input_layernorm", "shared_experts", "experts", "layers", "mlp", "weight", "bias"), r"\g<0>"),
}
KEYS = {"only_train_params_name_list": "train.only", "freeze_params_name_list": "train.freeze"}
COMMENT = "HuggingFace's names in place of Megatron's: look whether they are meant"


def chosen(flags: Flags, draft: Draft) -> None:
    """The keys train.only and train.freeze."""
    for name, key in KEYS.items():
        if flag := flags.take(name):
            _translate(flag, key, draft)


def _translate(flag: Flag, key: str, draft: Draft) -> None:
    found = [_translated(word) for word in flag.words]
    if None in found:
        why = "expressions are over HuggingFace's names here, and some of these names are not known"
        draft.lose(flag, why, f"set {key} to expressions over names of the checkpoint", "result")
    elif found:
        draft.put(key, found, flag, COMMENT)


def _translated(expression: str) -> str | None:
    """The expression with other names; None where a name in it is not known."""
    known = "|".join(f"(?:{one})" for one in RENAMED)
    left = re.sub(r"\\[A-Za-z]", "", re.sub(known, "", expression))
    if re.search("[A-Za-z]{2}", left):
        return None
    return re.sub(known, _renamed, expression)


def _renamed(match: re.Match[str]) -> str:
    for name, theirs in RENAMED.items():
        if re.fullmatch(name, match[0]):
            return re.sub(name, theirs, match[0])
    return match[0]
