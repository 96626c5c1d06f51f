"""Rows: of training, and of evaluation sets."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from common import yaml_dialect
from common.yaml_document import FileKind, parse_document
from launchers.moving_in.draft import Draft
from launchers.moving_in.flags import Flag, Flags, number, whole
from launchers.moving_in.local_files import text_of_file
from launchers.moving_in.rules.reward import NO_URL, REMOTE, REWRITTEN, asked_at, reward_type, to_be_written
from launchers.moving_in.rules.rollout import dotted
from launchers.moving_in.rules.supervised import is_supervised

SLICE = re.compile(r"(.*)@\[(\d*):(\d*)\]")
SAMPLING = {
    "n_samples_per_eval_prompt": "n_samples_per_prompt",
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "max_response_len": "max_response_tokens",
}  # of a set in such a file, and of `defaults`
EVAL_CONFIG = FileKind("evaluation config", "a mapping", "docs/moving-in.md", yaml_dialect.Typed, "give its path")


def data(flags: Flags, draft: Draft) -> None:
    """The section data."""
    given = flags.take("prompt_data")
    _source(draft, "data", given.text if given else "", given)
    if given is None:
        draft.todo.append("data.path: the script names no --prompt-data")
    _either(flags, draft, "data.prompt_key", "input_key", "input")
    _either(flags, draft, "data.label_key", "label_key", None)
    for key, name in (("apply_chat_template", "apply_chat_template"), ("shuffle", "rollout_shuffle")):
        _either(flags, draft, f"data.{key}", name, False)
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


def evaluation(flags: Flags, draft: Draft) -> None:
    """The section eval; without sets it is left out."""
    sets, config, interval = flags.take("eval_prompt_data"), flags.take("eval_config"), flags.take("eval_interval")
    keys = {
        name: flags.take(f"eval_{name}") for name in ("input_key", "label_key", "max_prompt_len", "max_context_len")
    }
    if interval is None or (sets is None and config is None):
        for name in [name for name in flags.given if "eval" in name and flags.left_to(name)] + ["eval_interval"]:
            _unused(draft, flags.take(name))
        for flag in (sets, config, *keys.values()):
            _unused(draft, flag)
        return
    draft.put("eval.interval", whole(interval.text, 0), interval)
    if skipped := flags.take("skip_eval_before_train"):
        draft.put("eval.skip_first", True, skipped)
    if config is not None:
        _from_config(flags, draft, config)
    elif sets is not None:
        for name, path in _named_files(draft, sets):
            _source(draft, f"eval.sets.{_plain(name)}", path, sets)
    for key in [one for one in draft.settings if re.fullmatch(r"eval\.sets\.[^.]+\.path", one)]:
        _like_training(draft, key.removesuffix(".path"), keys)
    _sampling(flags, draft)


def _named_files(draft: Draft, flag: Flag) -> list[tuple[str, str]]:
    """Names and files by turns; a lone file gets the name that it has."""
    if len(flag.words) == 1:
        why = "it has one word, and slime wants a name before each file"
        draft.lose(flag, why, "rename the set below eval.sets, if you like", "view")
        return [(Path(flag.text).stem, flag.text)]
    return [*zip(flag.words[::2], flag.words[1::2], strict=False)]


def _unused(draft: Draft, flag: Flag | None) -> None:
    if flag is not None:
        draft.skip(flag, "slime evaluates only with --eval-interval and sets, and so does this run file")


def _like_training(draft: Draft, place: str, given: dict[str, Flag | None]) -> None:
    """An evaluation set is read as training data is, unless flags say otherwise."""
    for key, flag in (("prompt_key", given["input_key"]), ("label_key", given["label_key"])):
        draft.default(f"{place}.{key}", flag.text if flag else draft.value(f"data.{key}", None), "")
    for key in ("apply_chat_template", "max_prompt_tokens"):
        draft.default(f"{place}.{key}", draft.value(f"data.{key}", None), "")
    limit = given["max_prompt_len"]
    if limit:
        draft.put(f"{place}.max_prompt_tokens", whole(limit.text, 1024), limit)


def _sampling(flags: Flags, draft: Draft) -> None:
    samples = flags.take("n_samples_per_eval_prompt")
    if samples:
        draft.put("eval.n_samples_per_prompt", whole(samples.text, 1), samples)
    temperature = number(flags.said("rollout_temperature"), 1.0)
    for name, default in (("temperature", temperature), ("top_p", 1.0)):
        flag = flags.take(f"eval_{name}")
        if flag:
            draft.put(f"eval.{name}", number(flag.text, default), flag)
        elif name == "temperature":
            draft.default("eval.temperature", default, "slime evaluates as it samples; 0, greedy, is the default here")


def _source(draft: Draft, place: str, path: str, flag: Flag | None) -> None:
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


def _from_config(flags: Flags, draft: Draft, flag: Flag) -> None:
    """The sets of a YAML file, if it is there."""
    text = text_of_file(flag.text)
    if text is None:
        draft.lose(flag, "the file is not there to be read", "write its sets below eval.sets", "result")
        return
    document, mistakes = parse_document(text, EVAL_CONFIG)
    tree = document.tree.get("eval", {}) if not mistakes else {}
    sets = [one for one in _list(tree, "datasets") if isinstance(one, dict) and isinstance(one.get("path"), str)]
    common: Any = tree.get("defaults") if isinstance(tree, dict) else None
    for one in sets:
        place = f"eval.sets.{_plain(str(one.get('name', 'eval')))}"
        _source(draft, place, one["path"], flag)
        for key, ours in (("input_key", "prompt_key"), ("label_key", "label_key")):
            if isinstance(one.get(key), str):
                draft.put(f"{place}.{ours}", one[key], flag)
        _sampled_so(draft, flag, place, one)
        _scored_so(flags, draft, flag, place, {**_mapping(common), **one})
    if isinstance(common, dict):
        _sampled_so(draft, flag, "eval", common)


def _sampled_so(draft: Draft, flag: Flag, place: str, said: dict[str, Any]) -> None:
    """What a set, or the defaults of all, say of sampling."""
    for key, ours in SAMPLING.items():
        if isinstance(said.get(key), int | float):
            draft.put(f"{place}.{ours}", said[key], flag)


def _scored_so(flags: Flags, draft: Draft, flag: Flag, place: str, said: dict[str, Any]) -> None:
    """The reward of a set, where it is not the script's: its function, or its rm_type if the script has no function."""
    if is_supervised(flags):
        return
    own, kind = said.get("custom_rm_path"), said.get("rm_type")
    if isinstance(own, str) and own:
        draft.put(f"{place}.reward", {"type": dotted(own)}, flag, "to be rewritten: f(sample) -> float")
        draft.lose(flag, f"{own} has another interface", REWRITTEN, "code")
        return
    if not isinstance(kind, str) or flags.said("custom_rm_path") or kind == flags.said("rm_type"):
        return
    if kind == REMOTE:
        url = flags.take("rm_url")
        draft.put(f"{place}.reward", asked_at(url.text if url else NO_URL), flag, f"rm_type {kind}")
        return
    name = reward_type(kind)
    draft.put(f"{place}.reward", {"type": name or to_be_written(kind)}, flag, f"rm_type {kind}")
    if name is None:
        draft.lose(flag, f"no reward named {kind} is built in", REWRITTEN, "code")


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(tree: Any, key: str) -> list[Any]:
    found = tree.get(key) if isinstance(tree, dict) else None
    return found if isinstance(found, list) else []


def _plain(name: str) -> str:
    return re.sub(r"[^\w-]", "_", name) or "eval"
