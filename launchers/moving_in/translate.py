"""Flags of a launch turned into a run file: rules for what needs thought, the table of names for all that is plain."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from common.nearest import nearest
from common.yaml_dialect import Typed, compose
from common.yaml_document import plain
from core.config.keys import RUN_KEYS
from core.config.other_names import ENGINE_OPTIONS, OtherName, find, names_of
from core.sglang.engine_options import OWNED, SET_BY_US, known_options
from core.sglang.option_fields import Option
from launchers.moving_in.config_files import flags_of_files
from launchers.moving_in.draft import Draft
from launchers.moving_in.flags import Flag, Flags, number
from launchers.moving_in.rules import (
    algorithm,
    chosen,
    data,
    engines,
    evaluation,
    model,
    others,
    placement,
    reward,
    rollout,
    supervised,
    train,
)

RULES = (
    model.model,
    data.data,
    rollout.rollout,
    reward.reward,
    algorithm.algorithm,
    train.train,
    chosen.chosen,
    placement.placement,
    evaluation.evaluation,
    others.checkpoint,
    others.logging,
    supervised.supervised,
)
"""In this order: batch sizes are known before the optimiser steps, which are before the schedule, and all of it before
what supervised training leaves out."""


def translate(program: str, flags: Flags) -> Draft:
    """The run file of a launch, in the making."""
    draft = Draft()
    flags_of_files(flags, draft)
    for rule in RULES:
        rule(flags, draft)
    for flag in flags.left():
        _by_table(draft, flag, find("slime", flag.name))
    _experts_of_engines(draft)
    engines.attention_groups(draft)
    model.fp8_where_it_can_be(draft)
    others.program(program, draft)
    for word in flags.stray:
        draft.lose(word, "it belongs to no flag", "look at the script", "view")
    return draft


def _experts_of_engines(draft: Draft) -> None:
    """An engine's experts are shared out over its own ranks."""
    key, ranks = f"{ENGINE_OPTIONS}.ep_size", draft.value("placement.engine_tensor_parallel", 1)
    wanted = draft.value(key, 1)
    if isinstance(wanted, int) and wanted > ranks:
        draft.settings[key] = replace(draft.settings[key], value=ranks, comment="all ranks of an engine")


def _by_table(draft: Draft, flag: Flag, name: OtherName | None) -> None:
    if name is None:
        suggestion = nearest(flag.name, names_of("slime"))
        do = f"did you mean --{suggestion.replace('_', '-')}? " if suggestion else ""
        why = "neither slime's table nor Megatron's part of it has it; slime ignores flags that it does not know"
        draft.lose(flag, why, f"{do}look it up, and set the key of docs/run-file.md that it means", "result")
    elif name.key.startswith(f"{ENGINE_OPTIONS}."):
        _engine_option(draft, flag, name.key.removeprefix(f"{ENGINE_OPTIONS}."))
    elif name.plain and (value := _value(name.key, flag)) is not None:
        draft.put(name.key, value[0], flag)
    elif name.gives is not None:
        draft.put(name.key, name.gives, flag)
    elif name.unless and any(_same(flag.text, one) for one in name.unless):
        draft.skip(flag, name.always or "it asks for nothing else")
    elif name.shape:
        draft.skip(flag, "config.json of the model says it")
    elif name.always:
        if name.unless:
            draft.lose(flag, name.always, "leave it out", "result")
        else:
            draft.skip(flag, name.always)
    elif name.key:
        draft.lose(
            flag,
            f"its value is no value of {name.key}",
            f"set {name.key}: {name.how or 'a value of its own'}",
            name.loses or "view",
        )
    else:
        draft.lose(flag, name.why, name.do, name.loses)


def _same(one: str, other: str) -> bool:
    return one == other or (other != "" and number(one, float("nan")) == number(other, float("inf")))


def _value(key: str, flag: Flag) -> tuple[Any] | None:
    """The flag's words as a value of this key; None: they are none."""
    schema = RUN_KEYS.schema_at(tuple(key.split("."))) or {}
    kinds = {one.get("type") for one in schema.get("anyOf", [schema])}
    if "array" in kinds:
        return ([_scalar(word) for word in flag.words],)
    if "boolean" in kinds:
        return (flag.text.lower() not in ("false", "0", "no"),)
    if len(flag.words) != 1:
        return None
    return (flag.text,) if "string" in kinds else (_scalar(flag.text),)


def _engine_option(draft: Draft, flag: Flag, option: str) -> None:
    """An option of SGLang, if its pinned version has it and the run leaves it free."""
    _, known = known_options("cuda")
    if option in OWNED:
        draft.lose(flag, "the run sets this option of engines", f"set {OWNED[option]}", "view")
    elif option in SET_BY_US:
        why = f"{SET_BY_US[option]} depend on this option of engines"
        draft.lose(flag, why, "leave it out", "speed")
    elif option not in known:
        suggestion = nearest(option, known)
        do = f"look whether {suggestion} is meant: placement.engine_options" if suggestion else "leave it out"
        draft.lose(flag, "the pinned SGLang has no option of that name", do, "speed")
    else:
        draft.put(f"{ENGINE_OPTIONS}.{option}", _of_kind(flag, known[option]), flag)


def _of_kind(flag: Flag, option: Option) -> Any:
    if option.kind in ("switch", "on_off"):
        return flag.text.lower() not in ("false", "0", "no")
    if option.kind == "list":
        return [_scalar(word) for word in flag.words]
    return flag.text if option.kind in ("text", "json") else _scalar(flag.text)


def _scalar(text: str) -> Any:
    """A word as YAML reads it: a number, a switch, else text."""
    if not re.fullmatch(r"[\w.+-]{1,40}", text, re.ASCII):
        return text
    node = compose(text, Typed)
    return text if node is None else plain(node, Typed, {})
