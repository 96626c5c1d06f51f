"""The model: its directory, its name among those that are known, the reference."""

from __future__ import annotations

import posixpath
import re

from core.checks.engine_weights import misfit
from core.config.other_names import ENGINE_OPTIONS
from core.pretrained.few_bits import FEW_BITS
from launchers.moving_in.draft import Draft
from launchers.moving_in.flags import Flag, Flags, number
from launchers.moving_in.rules.shape import known_name
from modelcfg import load

READ = ("fp8", "int4", "int8", "w4a16", "w8a16")  # by core/pretrained/quantised, as these are mostly published
NOT_READ = ("awq", "gptq", "nvfp4", "mxfp4")
QUANTISED = re.compile(rf"[-_]({'|'.join((*READ, *NOT_READ))})(?=$|[-_])", re.IGNORECASE)
IN_REWARDS = ("reinforce_plus_plus", "ppo")  # whose rewards of tokens a KL lowers, here and there
ENGINE_WEIGHTS = "placement.engine_weights"
EXPERT_RANKS = f"{ENGINE_OPTIONS}.ep_size"
CONVERTED = re.compile(r"[-_]torch[-_]dist$")


def model(flags: Flags, draft: Draft) -> None:
    """model.path, model.name and model.reference_path."""
    given, reference = flags.take("hf_checkpoint"), flags.take("ref_load")
    path, comment = _weights(converted_from(given.text if given else ""), reference)
    if given and _scheme(converted_from(given.text)) == "fp8":
        draft.put(ENGINE_WEIGHTS, "fp8", given, "as slime's engines compute; here a weight sync makes the fp8")
    elif comment:
        lose_engine_weights(draft, given or path)
    draft.put("model.path", path or "MODEL", given, comment)
    if not path:
        draft.todo.append("model.path: the script names no --hf-checkpoint")
    _reference(flags, draft, reference, path)
    _begin(flags, draft, path)
    if (found := known_name(flags, path)) is not None:
        draft.put("model.name", found, "the sizes of the script's MODEL_ARGS")


def lose_engine_weights(draft: Draft, flag: Flag | str) -> None:
    """Say that engines compute in the trainer's precision, where slime's are in few bits."""
    do = "engines need their memory in bfloat16: ask ebbtide plan"
    draft.lose(flag, "engines have the precision of the trainer", do, "memory")


def fp8_where_it_can_be(draft: Draft) -> None:
    """Take the key back for a known model whose family or sizes engines do not have in fp8."""
    name, ranks = draft.value("model.name", None), draft.value("placement.engine_tensor_parallel", 1)
    fp8, experts = FEW_BITS["fp8"], draft.value(EXPERT_RANKS, 1)
    if ENGINE_WEIGHTS in draft.settings and name and misfit(load(name), fp8, ranks, experts):
        lose_engine_weights(draft, draft.settings.pop(ENGINE_WEIGHTS).source)


def _weights(named: str, reference: Flag | None) -> tuple[str, str]:
    """The directory of the weights that slime's trainer begins with, and of quantised ones what to know about it.

    Quantised ones are its engines'; the trainer begins with what `--ref-load` was converted from.
    """
    if not (scheme := _scheme(named)):
        return named, ""
    trained = converted_from(reference.text) if reference else named
    if not _scheme(trained):
        return trained, f"slime's trainer begins with these, by --ref-load; its engines with {named}"
    if scheme in READ:
        return named, "what these weights stand for is where training begins"
    return QUANTISED.sub("", named), f"whole weights, as no {scheme} is read: those of {named}"


def _scheme(path: str) -> str:
    """The way in which weights are quantised, by the directory's name; empty: they are not."""
    found = QUANTISED.search(posixpath.basename(path))
    return found[1].lower() if found else ""


def converted_from(path: str) -> str:
    """The HuggingFace directory that slime's converted one was made of, by its usual name."""
    return CONVERTED.sub("", path.rstrip("/"))


def _reference(flags: Flags, draft: Draft, reference: Flag | None, path: str) -> None:
    if reference is None:
        return
    other = converted_from(reference.text)
    if flags.look("use_opd"):
        draft.skip(reference, "the teacher is the reference here")
    elif not has_reference(flags):
        draft.skip(reference, "no reference is loaded while there is no KL")
    elif _same(other, path):
        draft.skip(reference, "the reference is the model at model.path, if that is left out")
    else:
        draft.put("model.reference_path", other, reference, "a HuggingFace directory")


def has_reference(flags: Flags) -> bool:
    """Whether a KL to a reference is in the loss, or in the rewards of an advantage that takes it."""
    in_loss = flags.look("use_kl_loss") is not None and number(flags.said("kl_loss_coef"), 0.0) > 0
    return in_loss or (flags.said("advantage_estimator") in IN_REWARDS and number(flags.said("kl_coef"), 0.0) > 0)


def _same(one: str, other: str) -> bool:
    names = [QUANTISED.sub("", posixpath.basename(path)).casefold() for path in (one, other)]
    return names[0] == names[1]


def _begin(flags: Flags, draft: Draft, path: str) -> None:
    """`--load`, from which slime goes on: mostly the folder that it saves to."""
    load, save = flags.take("load"), flags.said("save")
    if load is None:
        return
    if load.text.rstrip("/") in (save.rstrip("/"), path) or converted_from(load.text) == path:
        draft.skip(load, "`ebbtide resume RUN_DIR` goes on; the first start takes model.path")
    else:
        do = "if it holds a checkpoint to begin from, export it and set model.path to that directory"
        draft.lose(load, "a run begins from a HuggingFace directory", do, "result")
