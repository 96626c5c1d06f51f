"""The reward."""

from __future__ import annotations

from typing import Any

from core.doors import ADDRESS, REWARD
from launchers.moving_in.draft import Draft
from launchers.moving_in.flags import Flag, Flags
from launchers.moving_in.rules.rollout import dotted

REMOTE = "remote_rm"
BOXED = "boxed_"  # slime looks into the last box first
OTHER_NAMES = {"gpqa": "choice"}
NO_URL = "http://HOST:PORT/PATH"
TEACHER_SERVER = "on_policy_distillation"  # the module of slime that asks one instead of scoring
REWRITTEN = "rewrite it as f(sample: RewardInput) -> float (docs/doors.md)"


def reward_type(rm_type: str) -> str | None:
    """The built-in reward of slime's name; None: there is none."""
    plain = rm_type.removeprefix(BOXED)
    name = OTHER_NAMES.get(plain, plain)
    return name if name in REWARD.builtins else None


def asked_at(url: str) -> dict[str, Any]:
    """The section of a reward that an address gives."""
    return {"type": ADDRESS, "options": {"url": url}}


def to_be_written(rm_type: str) -> str:
    """The function that takes the place of a reward that is not built in."""
    return f"{rm_type.removeprefix(BOXED)}.py:score"


def reward(flags: Flags, draft: Draft) -> None:
    """The section reward."""
    own, kind = flags.take("custom_rm_path"), flags.take("rm_type")
    if key := flags.take("reward_key"):
        draft.put("reward.key", key.text, key)
    if own and TEACHER_SERVER in own.text:
        draft.put("reward.type", "random", own, "it counts for nothing: the teacher does")
        for name in ("custom_reward_post_process_path", "rm_url"):
            if flag := flags.take(name):
                draft.skip(flag, "the teacher is the reference model here")
    elif own:
        draft.put("reward.type", dotted(own.text), own, "to be rewritten: f(sample) -> float")
        draft.lose(own, "its function has another interface", REWRITTEN, "code")
    elif kind and kind.text == REMOTE:
        _address(flags, draft, kind)
    elif kind:
        built_in = reward_type(kind.text)
        if built_in is not None:
            draft.put(
                "reward.type", built_in, kind, "math looks into the last box" if kind.text.startswith(BOXED) else ""
            )
        else:
            draft.put("reward.type", to_be_written(kind.text), kind, "to be written: f(sample) -> float")
            draft.lose(
                kind, f"no reward of that name is built in ({', '.join(sorted(REWARD.builtins))})", REWRITTEN, "code"
            )
    else:
        where = (
            "the script's generate function gives it"
            if flags.look("custom_generate_function_path")
            else "none is named"
        )
        draft.put("reward.type", "exact", None, f"to be chosen: {where}")
        draft.todo.append(f"reward.type: {where}")


def _address(flags: Flags, draft: Draft, kind: Flag) -> None:
    """A server is asked, as slime asks it: what it is sent here has all of that, and more."""
    url = flags.take("rm_url")
    section = asked_at(url.text if url else NO_URL)
    draft.put("reward.type", section["type"], kind)
    draft.put("reward.options", section["options"], url)
    draft.default("reward.timeout_s", 120.0, "slime's limit of a try; here of a sample with all its tries")
    draft.default("reward.num_workers", 16, "samples that are asked for at a time, on each node")
    if url is None:
        draft.todo.append("reward.options: the url; the script names no --rm-url")
