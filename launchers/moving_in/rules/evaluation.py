"""Evaluation: its sets, how they are read and how they are sampled."""

from __future__ import annotations

import re
from pathlib import Path

from launchers.moving_in.draft import Draft
from launchers.moving_in.flags import Flag, Flags, number, whole
from launchers.moving_in.rules.data import source
from launchers.moving_in.rules.eval_config import plain_name, sets_of_file

PATH = re.compile(r"eval\.sets\.[^.]+\.path")


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
        sets_of_file(flags, draft, config)
    elif sets is not None:
        for name, path in _named_files(draft, sets):
            source(draft, f"eval.sets.{plain_name(name)}", path, sets)
    places = [key.removesuffix(".path") for key in draft.settings if PATH.fullmatch(key)]
    for place in places:
        _like_training(flags, draft, place, keys)
    _sampling(flags, draft)
    _reward_key(flags, draft, places)


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


def _like_training(flags: Flags, draft: Draft, place: str, given: dict[str, Flag | None]) -> None:
    """An evaluation set is read as training data is, unless flags say otherwise."""
    for key, flag in (("prompt_key", given["input_key"]), ("label_key", given["label_key"])):
        draft.default(f"{place}.{key}", flag.text if flag else draft.value(f"data.{key}", None), "")
    draft.default(f"{place}.apply_chat_template", draft.value("data.apply_chat_template", None), "")
    options = draft.value("data.chat_template_options", None)
    if options and draft.value(f"{place}.apply_chat_template", False):
        draft.default(f"{place}.chat_template_options", options, "")
    limit, context = given["max_prompt_len"], given["max_context_len"]
    longest = whole(context.text, 0) - _longest_response(flags, draft, place) if context else 0
    if limit:
        draft.put(f"{place}.max_prompt_tokens", whole(limit.text, 1024), limit)
    elif longest > 0:
        draft.put(f"{place}.max_prompt_tokens", longest, context, "what the longest response leaves of it")
    else:
        draft.default(f"{place}.max_prompt_tokens", draft.value("data.max_prompt_tokens", None), "")


def _longest_response(flags: Flags, draft: Draft, place: str) -> int:
    said = flags.said("eval_max_response_len") or flags.said("rollout_max_response_len")
    shared: int = draft.value("eval.max_response_tokens", whole(said, 1024))
    own: int = draft.value(f"{place}.max_response_tokens", shared)
    return own


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


def _reward_key(flags: Flags, draft: Draft, places: list[str]) -> None:
    """The number of a mapping that counts in evaluations, where it is another than in training."""
    key = flags.take("eval_reward_key")
    if key is None:
        return
    if key.text == flags.said("reward_key"):
        draft.skip(key, "it is reward.key")
        return
    run = {"type": draft.value("reward.type", "exact"), "options": draft.value("reward.options", {})}
    for place in places:
        reward = draft.value(f"{place}.reward", {name: value for name, value in run.items() if value})
        draft.put(f"{place}.reward", {**reward, "key": key.text}, key)
