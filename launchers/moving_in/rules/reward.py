"""The reward."""

from __future__ import annotations

from core.doors import REWARD
from launchers.moving_in.draft import Draft
from launchers.moving_in.flags import Flags
from launchers.moving_in.rules.rollout import dotted

OTHER_NAMES = {"gpqa": "choice"}
TEACHER_SERVER = "on_policy_distillation"  # the module of slime that asks one instead of scoring
REWRITTEN = "rewrite it as f(sample: RewardInput) -> float (docs/doors.md)"


def reward(flags: Flags, draft: Draft) -> None:
    """The section reward."""
    own, kind = flags.take("custom_rm_path"), flags.take("rm_type")
    if own and TEACHER_SERVER in own.text:
        draft.put("reward.type", "random", own, "it counts for nothing: the teacher does")
        for name in ("custom_reward_post_process_path", "rm_url"):
            if flag := flags.take(name):
                draft.skip(flag, "the teacher is the reference model here")
    elif own:
        draft.put("reward.type", dotted(own.text), own, "to be rewritten: f(sample) -> float")
        draft.lose(own, "its function has another interface", REWRITTEN, "code")
    elif kind:
        plain = kind.text.removeprefix("boxed_")
        name = OTHER_NAMES.get(plain, plain)
        if name in REWARD.builtins:
            draft.put("reward.type", name, kind, "math looks into the last box" if plain != kind.text else "")
        else:
            draft.put("reward.type", f"{plain}.py:score", kind, "to be written: f(sample) -> float")
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
