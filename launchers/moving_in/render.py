"""The run file as text, each key with the flag or the reason that it comes from, and what is not in it above."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from common.yaml_dialect import Writer
from core.config.keys import RUN_KEYS
from launchers.moving_in.draft import LOSSES, Draft, Setting

WIDTH = 118


def run_file(draft: Draft, head: list[str]) -> str:
    """The text of the run file.

    Args:
        head: lines that say where it comes from.
    """
    lines = [f"# {line}".rstrip() for line in head]
    lines += [line for line in _comments(draft)]
    for key in RUN_KEYS.keys_of(()):
        below = {one: setting for one, setting in draft.settings.items() if one == key or one.startswith(f"{key}.")}
        if below:
            lines += ["", *_section(key, below)] if key in RUN_KEYS.sections() else _line(0, key, below[key])
    return "\n".join(lines) + "\n"


def _comments(draft: Draft) -> Iterator[str]:
    if draft.todo:
        yield "#"
        yield "# TO BE FILLED IN"
        yield from (f"#   {line}" for line in draft.todo)
    for kind, meaning in LOSSES.items():
        if found := draft.losses(kind):
            yield "#"
            yield f"# NO COUNTERPART: {meaning}"
            yield from (f"#   {lost.flag}: {lost.why}; {lost.do}" for lost in found)
    if draft.nothing:
        yield "#"
        yield "# NOTHING TO SET"
        yield from (f"#   {flag}: {why}" for flag, why in draft.nothing.items() if "config.json" not in why)
        shape = [flag for flag, why in draft.nothing.items() if "config.json" in why]
        if shape:
            yield f"#   {len(shape)} flags of the model's shape: config.json of the model says it"


def _section(key: str, settings: Mapping[str, Setting]) -> Iterator[str]:
    yield f"{key}:"
    order = RUN_KEYS.keys_of((key,))
    names = {one.split(".")[1] for one in settings}
    for name in sorted(names, key=order.index):
        place = f"{key}.{name}"
        if place in settings:
            yield from _line(1, name, settings[place])
        else:
            yield f"  {name}:"
            below = {
                one.removeprefix(f"{place}."): setting
                for one, setting in settings.items()
                if one.startswith(f"{place}.")
            }
            yield from _nested(below)


def _nested(settings: Mapping[str, Setting]) -> Iterator[str]:
    """eval.sets, by name; placement.engine_options, by option."""
    named: dict[str, dict[str, Setting]] = {}
    for key, setting in settings.items():
        name, _, rest = key.partition(".")
        if rest:
            named.setdefault(name, {})[rest] = setting
        else:
            yield from _line(2, name, setting)
    for name, keys in named.items():
        yield f"    {name}:"
        for key, setting in keys.items():
            yield from _line(3, key, setting)


def _line(depth: int, key: str, setting: Setting) -> Iterator[str]:
    text = f"{'  ' * depth}{key}: {_inline(setting.value)}"
    said = setting.source if not setting.comment else setting.comment
    if setting.source and setting.comment:
        said = f"{setting.source} ({setting.comment})"
    said = " ".join(said.split())
    if said and setting.source != str(setting.value):
        text = f"{text}  # {said}"
    yield text


def _inline(value: Any) -> str:
    """A value on one line, as a run file spells it."""
    text = io.StringIO()
    yaml.dump(value, text, Dumper=Writer, default_flow_style=True, sort_keys=False, allow_unicode=True, width=1_000_000)
    return text.getvalue().removesuffix("\n").removesuffix("\n...")
