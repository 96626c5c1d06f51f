"""A launch that learns the rows' own answers: what is left of a run file when nothing is sampled and nothing scored."""

from __future__ import annotations

from core.checks.rows import OF_ENGINES, READ, UNREAD_OF_SETS
from core.doors import ROWS
from launchers.moving_in.draft import Draft
from launchers.moving_in.flags import Flags

ROLLOUT = "sft_rollout"  # the end of the module's name that makes a step of rows
LOSS = "sft_loss"
SAYS_SO = "rollout.generate: rows says it"
AGGREGATION = "algorithm.loss_aggregation"
BUDGET = (("train.max_tokens_per_micro_batch", 8192), ("data.max_prompt_tokens", 1024))
PARTS = (
    *("data.label_key", "algorithm.advantage", "algorithm.loss", "algorithm.grpo"),
    *("critic.", "reward.", "placement.engine"),
)


def is_supervised(flags: Flags) -> bool:
    """Whether the launch learns answers of its rows."""
    return ROLLOUT in flags.said("rollout_function_path") and flags.said("loss_type") == LOSS


def supervised(flags: Flags, draft: Draft) -> None:
    """Take out what nothing reads where the rows have the answers, and set how they are read."""
    if not is_supervised(flags):
        return
    draft.put("rollout.generate", ROWS, flags.take("rollout_function_path"))
    for name in ("loss_type", "disable_compute_advantages_and_returns", "debug_train_only"):
        if flag := flags.take(name):
            draft.skip(flag, SAYS_SO)
    if mask := flags.take("loss_mask_type"):
        draft.skip(mask, "turns of the assistant are found by the chat template")
    kept = {key: setting for key, setting in draft.settings.items() if key == AGGREGATION or not _unread(key)}
    draft.settings.clear()
    draft.settings.update(kept)
    draft.todo[:] = [line for line in draft.todo if not line.startswith("reward.")]
    draft.put("data.apply_chat_template", True, None, "slime's own way of rows of messages")
    if "rollout.max_response_tokens" not in draft.settings:
        budget, prompt = (draft.value(key, default) for key, default in BUDGET)
        why = "slime has no limit; longer rows are left out here: raise it, with train.max_tokens_per_micro_batch"
        draft.default("rollout.max_response_tokens", max(1, budget - prompt), why)


def _unread(key: str) -> bool:
    section, _, name = key.partition(".")
    if section == "rollout":
        return name not in READ["rollout"] or name == "n_samples_per_prompt"
    if section == "eval":
        one = name.split(".")[2] if name.startswith("sets.") else name
        return one not in READ["eval"] and (one == name or one in UNREAD_OF_SETS)
    return key.startswith(PARTS) or (section == "placement" and name in OF_ENGINES)
