"""Steps, groups and batches; how samples are made."""

from __future__ import annotations

from launchers.moving_in.draft import Draft
from launchers.moving_in.flags import Flags, whole
from launchers.moving_in.local_files import lines_of_file
from launchers.moving_in.rules.supervised import is_supervised

NONZERO_STD = "check_reward_nonzero_std"
FALLBACK = "_with_fallback"  # the end of the name of a filter beside which no further round is drawn
MOST_ROUNDS = 10
PARTS = 8  # in which the longest response grows, where groups are carried over
GENERATION_REWRITTEN = "rewrite it as async def generate(task, engine) (docs/doors.md)"
ASYNCHRONOUS = "fully_async_rollout"
ONE_STEP_AHEAD = "take the schedule of docs/doors.md that samples a step ahead: placement.schedule"


def rollout(flags: Flags, draft: Draft) -> None:
    """The section rollout."""
    _steps(flags, draft)
    prompts, samples = flags.take("rollout_batch_size"), flags.take("n_samples_per_prompt")
    draft.put("rollout.rollout_batch_size", whole(prompts.text if prompts else "", 1), prompts)
    if samples:
        draft.put("rollout.n_samples_per_prompt", whole(samples.text, 1), samples)
    else:
        draft.default("rollout.n_samples_per_prompt", 1, "slime's default, without --n-samples-per-prompt; 8 here")
    _chosen_groups(flags, draft)
    _carried_over(flags, draft)
    _functions(flags, draft)


def _steps(flags: Flags, draft: Draft) -> None:
    steps, epochs = flags.take("num_rollout"), flags.take("num_epoch")
    if steps:
        draft.put("rollout.num_rollout", whole(steps.text, 1), steps)
        return
    if epochs:
        draft.put("rollout.num_epoch", whole(epochs.text, 1), epochs)
        return
    draft.put("rollout.num_rollout", 1, None)
    draft.todo.append("rollout.num_rollout: the script names neither --num-rollout nor --num-epoch")


def known_steps(draft: Draft) -> int | None:
    """Steps of the loop; None: they are epochs of rows that are not here, or have to be filled in."""
    epochs = draft.value("rollout.num_epoch", None)
    if epochs is None:
        to_be_chosen = any(line.startswith("rollout.num_rollout") for line in draft.todo)
        return None if to_be_chosen else draft.value("rollout.num_rollout", 1)
    path = draft.value("data.path", "")
    rows = lines_of_file(path) if path.endswith(".jsonl") else None
    return None if rows is None else max(1, epochs * rows // draft.value("rollout.rollout_batch_size", 1))


def _chosen_groups(flags: Flags, draft: Draft) -> None:
    """Over-sampling and the filter, which belong together here."""
    drawn, kept = flags.take("over_sampling_batch_size"), flags.take("dynamic_sampling_filter_path")
    least = draft.value("rollout.rollout_batch_size", 1)
    more = whole(drawn.text, 0) if drawn else 0
    if kept is None:
        if drawn and more > least and flags.look("partial_rollout"):
            draft.put("rollout.over_sampling_batch_size", more, drawn)
        elif drawn and more > least:
            draft.skip(drawn, "without a filter the first groups would be taken, so no more are drawn")
        elif drawn:
            draft.skip(drawn, "it is rollout_batch_size")
        return
    if NONZERO_STD in kept.text:
        draft.put("rollout.filter", "nonzero_std", kept)
    else:
        draft.put("rollout.filter", dotted(kept.text), kept, "to be rewritten: def f(group)")
        draft.lose(kept, "its function has another interface", "rewrite it as def f(group) (docs/doors.md)", "code")
    if kept.text.endswith(FALLBACK):
        draft.put("rollout.over_sampling_batch_size", more if more > least else 2 * least, drawn)
        return
    if drawn and more > least:
        draft.put("rollout.over_sampling_batch_size", more, drawn)
    elif drawn:
        draft.skip(drawn, "it is rollout_batch_size")
    why = "slime draws until the batch is full; here the first rejected ones fill up after these rounds"
    draft.default("rollout.filter_rounds", MOST_ROUNDS, why)


def _carried_over(flags: Flags, draft: Draft) -> None:
    """What slime breaks off when the batch is full, and goes on with later."""
    partial, masked = flags.take("partial_rollout"), flags.take("mask_offpolicy_in_partial_rollout")
    if partial and "rollout.over_sampling_batch_size" not in draft.settings:
        draft.skip(partial, "without over-sampling nothing is left over from a step")
    elif partial:
        longest = whole(flags.said("rollout_max_response_len"), 1024)
        why = "slime breaks off by time; here responses grow by this number of tokens at a time"
        draft.put("rollout.carry_over_tokens", max(1, longest // PARTS), partial, why)
        if masked:
            draft.put("rollout.mask_carried", True, masked)
            return
    if masked:
        draft.skip(masked, "nothing is carried over")


def _functions(flags: Flags, draft: Draft) -> None:
    own, whole_step = flags.take("custom_generate_function_path"), flags.take("rollout_function_path")
    if own:
        draft.put("rollout.generate", dotted(own.text), own, "to be rewritten: async def f(task, engine)")
        draft.lose(own, "its function has another interface", GENERATION_REWRITTEN, "code")
    if whole_step is None:
        return
    if is_supervised(flags):
        return
    if ASYNCHRONOUS in whole_step.text:
        draft.lose(whole_step, "a step's samples are made before it is learnt from", ONE_STEP_AHEAD, "speed")
    else:
        do = "what happens in a step is a schedule, what makes a sample is rollout.generate (docs/doors.md)"
        draft.lose(whole_step, "its function has another interface", do, "code")


def dotted(path: str) -> str:
    """`package.module.function` as a run file spells it."""
    module, _, function = path.rpartition(".")
    return f"{module}:{function}" if module else path
