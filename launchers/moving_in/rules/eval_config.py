"""Evaluation sets of a YAML file, as slime's --eval-config names one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from common import yaml_dialect
from common.yaml_document import FileKind, parse_document
from core.config.other_names import find
from launchers.moving_in.draft import Draft
from launchers.moving_in.flags import Flag, Flags
from launchers.moving_in.local_files import text_of_file
from launchers.moving_in.rules.data import source
from launchers.moving_in.rules.reward import NO_URL, REMOTE, REWRITTEN, asked_at, reward_type, to_be_written
from launchers.moving_in.rules.rollout import GENERATION_REWRITTEN, dotted
from launchers.moving_in.rules.supervised import is_supervised

KIND = FileKind("evaluation config", "a mapping", "docs/moving-in.md", yaml_dialect.Typed, "give its path")
SAMPLING = {
    "n_samples_per_eval_prompt": "n_samples_per_prompt",
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "max_response_len": "max_response_tokens",
}
READING = {
    "input_key": "prompt_key",
    "label_key": "label_key",
    "apply_chat_template": "apply_chat_template",
    "apply_chat_template_kwargs": "chat_template_options",
}
GENERATE, REWARD = "custom_generate_function_path", "custom_rm_path"
TRANSLATED = {"name", "path", "rm_type", GENERATE, REWARD, *SAMPLING, *READING}
AS_THE_FLAG = {
    **{name: name for name in ("tool_key", "multimodal_keys", "metadata_key")},
    **{name: f"rollout_{name}" for name in ("stop", "stop_token_ids", "skip_special_tokens")},
    "min_new_tokens": "eval_min_new_tokens",
}
"""Keys of a set that mean what a flag means."""
WAITS = ("an evaluation waits for all samples of a set", "leave it out", "view")
NO_SERVICE = ("a set is rows, a generation and a reward", "write a generate function for it (docs/doors.md)", "code")
OTHERS = {
    "repetition_penalty": ("samples come from the model's own distribution", "leave it out", "result"),
    "metadata_overrides": ("a reward gets the keys of its row", "write them into the rows", "result"),
    "eval_task_timeout": ("a sample has the run's time limit", "set rollout.generate_timeout_s", "view"),
    **dict.fromkeys(("app_service", "message_processor", "reward_model", "remote_environment"), NO_SERVICE),
    **dict.fromkeys(("min_eval_samples", "eval_early_stop_remaining", "eval_early_stop_idle_timeout"), WAITS),
}
"""Keys of a set alone: why nothing corresponds, what to do, and what is lost."""


def sets_of_file(flags: Flags, draft: Draft, flag: Flag) -> None:
    """The sets of the file, if it is there."""
    text = text_of_file(flag.text)
    if text is None:
        draft.lose(flag, "the file is not there to be read", "write its sets below eval.sets", "result")
        return
    document, mistakes = parse_document(text, KIND)
    if mistakes:
        draft.lose(flag, f"the file cannot be read ({mistakes[0]})", "write its sets below eval.sets", "result")
        return
    tree = _mapping(document.tree.get("eval"))
    common = _mapping(tree.get("defaults"))
    _sampled_so(draft, flag, "eval", common)
    _has_no_counterpart(flags, draft, flag, "defaults", common)
    for name, one in _sets(tree.get("datasets")):
        place, said = f"eval.sets.{plain_name(name)}", {**common, **one}
        source(draft, place, one["path"], flag)
        _read_so(draft, flag, place, said)
        _sampled_so(draft, flag, place, one)
        if not is_supervised(flags):
            _answered_so(flags, draft, flag, place, said)
            _scored_so(flags, draft, flag, place, said)
        _has_no_counterpart(flags, draft, flag, name, one)


def plain_name(name: str) -> str:
    """The name of a set, as a run file may have it."""
    return re.sub(r"[^\w-]", "_", name) or "eval"


def _sets(tree: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Names and sets: of a list, or of a mapping by name."""
    named = tree.items() if isinstance(tree, dict) else ((None, one) for one in tree if isinstance(tree, list))
    for name, one in named:
        if isinstance(one, dict) and isinstance(one.get("path"), str):
            yield str(one.get("name", name or "eval")), one


def _read_so(draft: Draft, flag: Flag, place: str, said: Mapping[str, Any]) -> None:
    for key, ours in READING.items():
        if isinstance(said.get(key), str | bool | dict):
            draft.put(f"{place}.{ours}", said[key], flag)


def _sampled_so(draft: Draft, flag: Flag, place: str, said: Mapping[str, Any]) -> None:
    """What a set, or the defaults of all, say of sampling."""
    for key, ours in SAMPLING.items():
        if isinstance(said.get(key), int | float):
            draft.put(f"{place}.{ours}", said[key], flag)


def _answered_so(flags: Flags, draft: Draft, flag: Flag, place: str, said: Mapping[str, Any]) -> None:
    """The generation of a set, where it is not the script's."""
    own = said.get(GENERATE)
    if isinstance(own, str) and own and own != flags.said(GENERATE):
        draft.put(f"{place}.generate", dotted(own), flag, "to be rewritten: async def f(task, engine)")
        draft.lose(flag, f"{own} has another interface", GENERATION_REWRITTEN, "code")


def _scored_so(flags: Flags, draft: Draft, flag: Flag, place: str, said: Mapping[str, Any]) -> None:
    """The reward of a set, where it is not the script's: its function, or its rm_type if the script has no function."""
    own, kind = said.get(REWARD), said.get("rm_type")
    if isinstance(own, str) and own:
        draft.put(f"{place}.reward", {"type": dotted(own)}, flag, "to be rewritten: f(sample) -> float")
        draft.lose(flag, f"{own} has another interface", REWRITTEN, "code")
        return
    if not isinstance(kind, str) or flags.said(REWARD) or kind == flags.said("rm_type"):
        return
    if kind == REMOTE:
        url = flags.take("rm_url")
        draft.put(f"{place}.reward", asked_at(url.text if url else NO_URL), flag, f"rm_type {kind}")
        return
    name = reward_type(kind)
    draft.put(f"{place}.reward", {"type": name or to_be_written(kind)}, flag, f"rm_type {kind}")
    if name is None:
        draft.lose(flag, f"no reward named {kind} is built in", REWRITTEN, "code")


def _has_no_counterpart(flags: Flags, draft: Draft, flag: Flag, whose: str, said: Mapping[str, Any]) -> None:
    """What is said of a set and has no key there, with the reason of the flag that means the same."""
    for key, value in said.items():
        if key in TRANSLATED or value in (None, [], {}, ""):
            continue
        if key in AS_THE_FLAG:
            _as_the_flag(flags, draft, flag, f"{key} of {whose}", AS_THE_FLAG[key], value)
        elif key in OTHERS:
            why, do, loses = OTHERS[key]
            draft.lose(flag, f"{key} of {whose}: {why}", do, loses)
        else:
            do = "look it up, and set the key of eval.sets that it means"
            draft.lose(flag, f"{key} of {whose}: slime's sets have no such key", do, "result")


def _as_the_flag(flags: Flags, draft: Draft, flag: Flag, what: str, name: str, value: Any) -> None:
    row = find("slime", name)
    if row is not None and row.why:
        draft.lose(flag, f"{what}: {row.why}", row.do, row.loses)
    elif row is not None and row.key and flags.said(name).split() != [str(one) for one in _list(value)]:
        draft.lose(flag, f"{what}: it is the run's for all sets", f"set {row.key}", "result")


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
