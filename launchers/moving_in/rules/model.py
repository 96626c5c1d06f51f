"""The model: its directory, its name among those that are known, the reference."""

from __future__ import annotations

import posixpath
import re

import modelcfg
from launchers.moving_in.draft import Draft
from launchers.moving_in.flags import Flag, Flags, number
from modelcfg import ModelShape

QUANTISED = re.compile(r"[-_](fp8|int4|int8|awq|gptq|w4a16|nvfp4|mxfp4)(?=$|[-_])", re.IGNORECASE)
CONVERTED = re.compile(r"[-_]torch[-_]dist$")
SIZES = {
    "num_layers": "num_layers",
    "hidden_size": "hidden_size",
    "num_attention_heads": "num_attention_heads",
    "vocab_size": "vocab_size",
    "num_experts": "num_experts",
    "moe_router_topk": "experts_per_token",
    "rotary_base": "rope_theta",
    "kv_channels": "head_dim",
    "num_query_groups": "num_query_groups",
}
KNOWN_SPEC = "glm4"  # whose norms behind attention and feed-forward a family here has
OF_NO_FAMILY = {
    "multi_latent_attention": "multi-latent attention",
    "spec": "layers of its own (--spec)",
    "moe_shared_expert_intermediate_size": "shared experts",
    "moe_router_enable_expert_bias": "a router with expert biases",
    "attention_output_gate": "gated attention",
}


def model(flags: Flags, draft: Draft) -> None:
    """model.path, model.name and model.reference_path."""
    given, reference = flags.take("hf_checkpoint"), flags.take("ref_load")
    path = _clean(given.text if given else "")
    comment = ""
    if QUANTISED.search(posixpath.basename(path)):
        plain = _clean(reference.text) if reference else QUANTISED.sub("", path)
        comment = f"engines begin with the trainer's bfloat16 weights; the script's are at {path}"
        do = "set model.path to the bfloat16 weights; engines need their memory"
        draft.lose(given or path, "engines have the precision of the trainer", do, "memory")
        path = plain
    draft.put("model.path", path or "MODEL", given, comment)
    if not path:
        draft.todo.append("model.path: the script names no --hf-checkpoint")
    _reference(flags, draft, reference, path)
    _begin(flags, draft, path)
    if (found := known_name(flags, path)) is not None:
        draft.put("model.name", found, "the sizes of the script's MODEL_ARGS")


def _clean(path: str) -> str:
    return CONVERTED.sub("", path.rstrip("/"))


def _reference(flags: Flags, draft: Draft, reference: Flag | None, path: str) -> None:
    if reference is None:
        return
    other = _clean(reference.text)
    if not (flags.look("use_kl_loss") and number(flags.said("kl_loss_coef"), 0.0) > 0):
        draft.skip(reference, "no reference is loaded while the KL is not in the loss")
    elif _same(other, path):
        draft.skip(reference, "the reference is the model at model.path, if that is left out")
    else:
        draft.put("model.reference_path", other, reference, "a HuggingFace directory")


def _same(one: str, other: str) -> bool:
    names = [QUANTISED.sub("", posixpath.basename(path)).casefold() for path in (one, other)]
    return names[0] == names[1]


def _begin(flags: Flags, draft: Draft, path: str) -> None:
    """`--load`, from which slime goes on: mostly the folder that it saves to."""
    load, save = flags.take("load"), flags.said("save")
    if load is None:
        return
    if load.text.rstrip("/") in (save.rstrip("/"), path) or _clean(load.text) == path:
        draft.skip(load, "`ebbtide resume RUN_DIR` goes on; the first start takes model.path")
    else:
        do = "if it holds a checkpoint to begin from, export it and set model.path to that directory"
        draft.lose(load, "a run begins from a HuggingFace directory", do, "result")


def known_name(flags: Flags, path: str = "") -> str | None:
    """The name of `ebbtide models` whose shape has the sizes that the flags give; None: none, or no sizes."""
    if not flags.look("num_layers") or not flags.look("hidden_size"):
        return None
    fits = [name for name in modelcfg.names() if _fits(flags, modelcfg.load(name))]
    named = [name for name in fits if name.replace("-", "") in posixpath.basename(path).casefold().replace("-", "")]
    return next(iter(named or fits), None)


def _fits(flags: Flags, shape: ModelShape) -> bool:
    feed_forward = flags.said("moe_ffn_hidden_size") or flags.said("ffn_hidden_size")
    pairs = [(flags.said(name), getattr(shape, of)) for name, of in SIZES.items()]
    pairs.append((feed_forward, shape.ffn_hidden_size))
    same = all(number(text, -1.0) == float(value) for text, value in pairs if text)
    return same and (flags.look("num_experts") is not None) == (shape.num_experts > 0) and unknown_family(flags) == ""


def unknown_family(flags: Flags) -> str:
    """What the model has that no family here has; empty: nothing that flags show."""
    for name, what in OF_NO_FAMILY.items():
        if flags.look(name) and not (name == "spec" and KNOWN_SPEC in flags.said("spec")):
            return what
    if flags.look("num_experts") and not flags.look("qk_layernorm"):
        return "experts without norms of query and key"
    return ""
