"""Batch sizes, optimiser, schedule, recompute."""

from __future__ import annotations

from collections.abc import Sequence

from launchers.moving_in.draft import Draft
from launchers.moving_in.flags import Flag, Flags, number, whole
from launchers.moving_in.rules.rollout import known_steps

SCHEDULES = ("constant", "linear", "cosine")


def train(flags: Flags, draft: Draft) -> None:
    """The section train."""
    _batch(flags, draft)
    _routing_replay(flags, draft)
    _learning_rate(flags, draft)
    _budget(flags, draft)
    _recompute(flags, draft)
    _optimizer_state(flags, draft)
    for key, value, ours in (("weight_decay", 0.01, 0.0), ("adam_beta2", 0.999, 0.98)):
        flag = flags.take(key)
        if flag:
            draft.put(f"train.{key}", number(flag.text, value), flag)
        else:
            draft.default(f"train.{key}", value, f"Megatron's default, without --{key.replace('_', '-')}; {ours} here")
    why = "slime's masters begin at their bfloat16 weight; true lets small updates show at once (docs/learning.md)"
    draft.default("train.dither_masters", False, why)
    flags.take("use_distributed_optimizer")
    draft.default("train.use_distributed_optimizer", True, "slime always shares the optimiser's state out")


def _batch(flags: Flags, draft: Draft) -> None:
    """All samples of a step are used, in optimiser steps of one size."""
    size, steps = flags.take("global_batch_size"), flags.take("num_steps_per_rollout")
    made = draft.value("rollout.rollout_batch_size", 1) * draft.value("rollout.n_samples_per_prompt", 1)
    if steps:
        count = max(1, whole(steps.text, 1))
        draft.put("train.num_steps_per_rollout", count, steps)
        draft.put(
            "train.global_batch_size",
            max(1, made // count),
            size,
            "" if size else "samples of a step / its optimiser steps",
        )
        return
    used = whole(size.text, made) if size else made
    count = max(1, made // max(1, used))
    draft.put("train.global_batch_size", max(1, made // count), size)
    draft.put("train.num_steps_per_rollout", count, size, "samples of a step / global_batch_size")
    if size and used * count != made:
        why = f"slime drops {made - used * count} of the {made} samples of a step; here all of them are used"
        draft.lose(size, why, "choose sizes that divide, if that is not meant", "result")


def _routing_replay(flags: Flags, draft: Draft) -> None:
    """Whose experts are replayed, of models that have some; the engine's, where both are asked for.

    slime replays the trainer's own in a single optimiser step, too: those of the old log-probs, by the same weights.
    """
    own, engines = flags.take("use_routing_replay"), flags.take("use_rollout_routing_replay")
    used, kind = (engines, "engine") if engines else (own, "trainer")
    if own and engines:
        draft.skip(own, "those of the engine are replayed")
    if used and flags.look("num_layers") and not whole(flags.said("num_experts"), 0):
        draft.skip(used, "the model has no experts")
    elif used and kind == "trainer" and draft.value("train.num_steps_per_rollout", 1) == 1:
        draft.skip(used, "a single optimiser step takes the experts that its own weights choose")
    elif used and whole(flags.said("context_parallel_size"), 1) > 1:
        draft.lose(used, "only ranks that have whole rows replay experts", "set context_parallel to 1", "result")
    elif used:
        draft.put("algorithm.routing_replay", kind, used)


def _learning_rate(flags: Flags, draft: Draft) -> None:
    style, share = flags.take("lr_decay_style"), flags.take("lr_warmup_fraction")
    if style and style.text in SCHEDULES:
        draft.put("train.lr_schedule", style.text, style)
    elif style:
        draft.put("train.lr_schedule", "constant", style)
        draft.lose(style, f"the schedules are {', '.join(SCHEDULES)}", "choose one of them", "result")
    else:
        draft.default("train.lr_schedule", "linear", "Megatron's default, without --lr-decay-style; constant here")
    steps = known_steps(draft)
    if share and steps is not None:
        total = steps * draft.value("train.num_steps_per_rollout", 1)
        draft.put("train.lr_warmup_steps", int(number(share.text, 0.0) * total), share, f"of {total} optimiser steps")
    elif share:
        draft.put("train.lr_warmup_steps", 0, share, "to be filled in")
        draft.todo.append(f"train.lr_warmup_steps: {share.text} × steps of the run × num_steps_per_rollout")


def _budget(flags: Flags, draft: Draft) -> None:
    """Tokens of a micro-batch: slime counts per rank, and puts a longer sample into one of its own."""
    given, context = flags.take("max_tokens_per_gpu"), whole(flags.said("context_parallel_size"), 1)
    budget = whole(given.text, 8192) * max(1, context) if given else 8192
    prompt, response = (
        draft.value("data.max_prompt_tokens", 1024),
        whole(flags.said("rollout_max_response_len"), 1024),
    )
    longest = prompt + response
    if longest > budget:
        draft.put("train.max_tokens_per_micro_batch", longest, given, f"above {budget}, as one sample may be this long")
    elif given:
        note = f"× context_parallel_size {context}" if context > 1 else ""
        draft.put("train.max_tokens_per_micro_batch", budget, given, note)


def _optimizer_state(flags: Flags, draft: Draft) -> None:
    """Masters and moments in host memory: Adam works on the GPU here, piece by piece, and with a critic it does not."""
    used = flags.take("optimizer_cpu_offload")
    if used and draft.value("algorithm.advantage_estimator", "") == "gae":
        do = "its state leaves the GPU while engines work (placement.offload); ask ebbtide plan whether it fits"
        draft.lose(used, "the optimiser's state stays on the GPU in an update beside a critic", do, "memory")
    elif used:
        draft.put("train.optimizer_state", "streamed", used, "auto: only where a GPU has no room for it")


def _recompute(flags: Flags, draft: Draft) -> None:
    names = ("granularity", "method", "num_layers", "modules")
    kind, method, count, modules = (flags.take(f"recompute_{name}") for name in names)
    if kind and kind.text == "full":
        draft.put("train.recompute", "full", kind)
        in_blocks = method is not None and count is not None and method.text == "block"
        if count and in_blocks:
            draft.put("train.recompute_layers", whole(count.text, 1), count)
        _skip((modules, *(() if in_blocks else (method, count))), "all layers are recomputed, each by itself", draft)
    elif kind:
        _some_parts(kind, modules, draft)
        _skip((method, count), "they are of whole layers", draft)
    else:
        _skip((method, count, modules), "nothing is recomputed", draft)


def _some_parts(kind: Flag, modules: Flag | None, draft: Draft) -> None:
    """Selective recompute: of Megatron's modules, core_attn where none are named."""
    named = set(modules.words) if modules else {"core_attn"}
    if named <= {"core_attn"}:
        _skip((kind, modules), "attention keeps nothing that could be made again", draft)
        return
    draft.put("train.recompute", "selective", kind)
    if others := sorted(named - {"core_attn", "layernorm", "moe_act"}):
        why = f"norms and activations are made again, {' and '.join(others)} not"
        draft.lose(modules or kind, why, "set train.recompute to full, if memory is short", "memory")
    else:
        _skip((modules,), "norms and activations are made again", draft)


def _skip(flags: Sequence[Flag | None], why: str, draft: Draft) -> None:
    for flag in filter(None, flags):
        draft.skip(flag, why)
