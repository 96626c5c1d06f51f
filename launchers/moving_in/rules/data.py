"""Rows: of training, and what a set of rows is in both."""

from __future__ import annotations

import json
import re
from typing import Any

from launchers.moving_in.draft import Draft
from launchers.moving_in.flags import Flag, Flags, whole

SLICE = re.compile(r"(.*)@\[(\d*):(\d*)\]")


def data(flags: Flags, draft: Draft) -> None:
    """The section data."""
    given = flags.take("prompt_data")
    source(draft, "data", given.text if given else "", given)
    if given is None:
        draft.todo.append("data.path: the script names no --prompt-data")
    _either(flags, draft, "data.prompt_key", "input_key", "input")
    _either(flags, draft, "data.label_key", "label_key", None)
    for key, name in (("apply_chat_template", "apply_chat_template"), ("shuffle", "rollout_shuffle")):
        _either(flags, draft, f"data.{key}", name, False)
    _template_options(flags, draft)
    _longest_prompt(flags, draft)
    seed = flags.whole("rollout_seed", 42)
    _either(flags, draft, "data.seed", "rollout_seed", 42)
    draft.default("rollout.seed", seed, "slime has one seed for the order of the rows and for samples")


def _either(flags: Flags, draft: Draft, key: str, name: str, default: str | int | bool | None) -> None:
    """A key whose default is another in slime: the flag's words, or what slime takes without the flag."""
    flag = flags.take(name)
    if flag is None:
        draft.default(key, default, f"slime's default, without --{name.replace('_', '-')}")
    elif isinstance(default, bool):
        draft.put(key, True, flag)
    else:
        draft.put(key, whole(flag.text, default) if isinstance(default, int) else flag.text, flag)


def _template_options(flags: Flags, draft: Draft) -> None:
    flag = flags.take("apply_chat_template_kwargs")
    if flag is None:
        return
    options = _mapping(flag.text)
    if options is None:
        draft.lose(flag, "its value is no mapping in JSON", "set data.chat_template_options", "result")
    elif options and draft.value("data.apply_chat_template", False):
        draft.put("data.chat_template_options", options, flag)
    else:
        draft.skip(flag, "it asks for nothing, or no template is applied")


def _mapping(text: str) -> dict[str, Any] | None:
    """The mapping that JSON text spells, if it spells one."""
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _longest_prompt(flags: Flags, draft: Draft) -> None:
    limit, context = flags.take("rollout_max_prompt_len"), flags.take("rollout_max_context_len")
    response = whole(flags.said("rollout_max_response_len"), 0)
    if limit:
        draft.put("data.max_prompt_tokens", whole(limit.text, 1024), limit)
    elif context and whole(context.text, 0) > response > 0:
        longest = whole(context.text, 0) - response
        draft.put("data.max_prompt_tokens", longest, context, "what the longest response leaves of it")
    else:
        why = "slime has no limit; longer prompts are left out here: raise it if yours are longer"
        draft.default("data.max_prompt_tokens", 1024, why)


def source(draft: Draft, place: str, path: str, flag: Flag | None) -> None:
    """A file of rows, perhaps a part of it."""
    match = SLICE.fullmatch(path)
    path = match[1] if match else path
    if path.endswith(".parquet"):
        draft.put(f"{place}.source", "parquet", flag)
    draft.put(f"{place}.path", path or "ROWS.jsonl", flag)
    if match and match[3] and whole(match[2] or "0", 0) == 0:
        draft.put(f"{place}.size", whole(match[3], 1), flag)
    elif match:
        draft.lose(
            flag or path,
            f"of {path} a part is taken that does not begin at row 0",
            "write these rows to a file",
            "result",
        )
