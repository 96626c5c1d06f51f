"""Advantage and loss."""

from __future__ import annotations

from core.config.other_names import VALUES
from launchers.moving_in.draft import Draft
from launchers.moving_in.flags import Flags, number, whole
from launchers.moving_in.rules.model import IN_REWARDS, converted_from, has_reference
from launchers.moving_in.rules.reward import TEACHER_SERVER
from launchers.moving_in.rules.rollout import dotted
from launchers.moving_in.rules.supervised import LOSS, is_supervised

LOSSES = {"gspo": "gspo", "cispo": "cispo"}
ADVANTAGES = {
    **{name: name for name in ("grpo", "reinforce_plus_plus", "reinforce_plus_plus_baseline")},
    "ppo": "gae",
}
DISCOUNTS = {"reinforce_plus_plus": ("gamma",), "ppo": ("gamma", "lambd")}


def algorithm(flags: Flags, draft: Draft) -> None:
    """The section algorithm."""
    _advantage(flags, draft)
    _loss(flags, draft)
    _distillation(flags, draft)
    _kl_in_reward(flags, draft)
    _kl(flags, draft)
    _importance(flags, draft)
    per_token = flags.take("calculate_per_token_loss")
    if per_token:
        draft.put("algorithm.loss_aggregation", "token_mean", per_token)
    else:
        why = "slime's default: a mean over the samples of the mean over their tokens; token_mean is the default here"
        draft.default("algorithm.loss_aggregation", "sample_mean", why)


def _distillation(flags: Flags, draft: Draft) -> None:
    """A teacher's log-probs beside the reward: slime takes `opd_kl_coef` x (logp - teacher's) from the advantage."""
    used, kind = flags.take("use_opd"), flags.take("opd_type")
    weight, teacher, step = (flags.take(f"opd_{name}") for name in ("kl_coef", "teacher_load", "teacher_ckpt_step"))
    if used is None:
        for flag in (kind, weight, teacher, step):
            if flag:
                draft.skip(flag, "without --use-opd it is not read")
        return
    rewarded = TEACHER_SERVER not in flags.said("custom_rm_path")
    draft.put("algorithm.loss", "distillation", used)
    options = {"coef": number(weight.text if weight else "", 1.0), "advantage_weight": float(rewarded)}
    draft.put("algorithm.loss_options", options, weight, "" if rewarded else "slime's rewards are 0 here")
    if kind:
        draft.skip(kind, "the teacher is the reference model, on the trainer's GPUs")
    if teacher:
        draft.put("model.reference_path", converted_from(teacher.text), teacher, "the teacher's HuggingFace directory")
    else:
        draft.put("model.reference_path", "TEACHER", used)
        draft.todo.append("model.reference_path: the teacher's HuggingFace directory; the script has it on a server")
    if step:
        draft.skip(step, "the teacher is a HuggingFace directory")


def _advantage(flags: Flags, draft: Draft) -> None:
    own, kind = flags.take("custom_advantage_function_path"), flags.take("advantage_estimator")
    if own:
        draft.put("algorithm.advantage_estimator", dotted(own.text), own, "to be rewritten: f(rewards, groups, valid)")
        draft.lose(own, "its function has another interface", "rewrite it (docs/doors.md)", "code")
    elif kind and kind.text in LOSSES:
        draft.put("algorithm.loss", LOSSES[kind.text], kind, "its advantage is that of grpo")
    elif kind and kind.text not in ADVANTAGES:
        do = VALUES["algorithm.advantage_estimator"].get(kind.text, "choose one of docs/algorithms.md")
        draft.lose(kind, f"there is no {kind.text}", do, "result")
    elif kind:
        draft.put("algorithm.advantage_estimator", ADVANTAGES[kind.text], kind)
    _discounts(flags, draft, kind.text if kind else "")
    _critic(flags, draft, kind.text if kind else "")
    plain = flags.take("disable_grpo_std_normalization")
    if plain or draft.value("rollout.n_samples_per_prompt", 1) == 1:
        draft.default("algorithm.grpo_std_normalization", False, str(plain or "slime's way with one sample per prompt"))


def _discounts(flags: Flags, draft: Draft, kind: str) -> None:
    options, read = dict[str, float](), DISCOUNTS.get(kind, ())
    for name in ("gamma", "lambd"):
        flag = flags.take(name)
        if flag and name in read:
            options[name] = number(flag.text, 1.0)
            draft.put("algorithm.advantage_options", options, flag)
        elif flag:
            draft.skip(flag, f"only {' and '.join(one for one in DISCOUNTS if name in DISCOUNTS[one])} reads it")


def _critic(flags: Flags, draft: Draft, kind: str) -> None:
    clip, alone = flags.take("value_clip"), flags.take("num_critic_only_steps")
    for flag in (clip, alone):
        if flag and kind != "ppo":
            draft.skip(flag, "without ppo there is no critic")
    if kind == "ppo" and clip:
        draft.put("critic.value_clip", number(clip.text, 0.2), clip)
    if kind == "ppo" and alone:
        draft.put("critic.num_critic_only_steps", whole(alone.text, 0), alone)


def _loss(flags: Flags, draft: Draft) -> None:
    kind, own = flags.take("loss_type"), flags.take("custom_loss_function_path")
    if kind and kind.text == LOSS and not is_supervised(flags):
        do = "write a run file with rollout.generate: rows (docs/sft.md)"
        draft.lose(kind, "the answers that it learns are in the rows here, and nothing is sampled", do, "task")
    elif own:
        draft.put("algorithm.loss", dotted(own.text), own, "to be rewritten: f(logprobs, entropy, inputs)")
        draft.lose(own, "its function has another interface", "rewrite it (docs/doors.md)", "code")
    elif kind:
        draft.skip(kind, "the clipped loss is the default")


def _kl_in_reward(flags: Flags, draft: Draft) -> None:
    """slime's estimate there is that of --kl-loss-type, k1 if it is left out; here it is k1."""
    weight, update = flags.take("kl_coef"), flags.take("ref_update_interval")
    estimator = flags.said("advantage_estimator")
    found = number(weight.text if weight else "", 0.0)
    if weight and found > 0 and estimator in IN_REWARDS:
        draft.put("algorithm.kl_coef", found, weight)
        kind = flags.take("kl_loss_type")
        if kind and kind.text != "k1":
            draft.lose(kind, "the KL in the rewards is k1", "leave it so, or set algorithm.kl_loss_coef", "result")
    elif weight and found > 0 and estimator == "reinforce_plus_plus_baseline":
        do = "set algorithm.kl_loss_coef, which is in the loss, as in the paper"
        draft.lose(weight, "its rewards are not lowered by the KL", do, "result")
    elif weight:
        draft.skip(weight, "it has no effect there" if found > 0 else "with a coefficient of 0 the KL has no effect")
    if update and has_reference(flags) and not flags.look("use_opd"):
        draft.put("algorithm.ref_update_interval", whole(update.text, 1), update)
    elif update:
        draft.skip(update, "no reference is loaded while there is no KL")


def _kl(flags: Flags, draft: Draft) -> None:
    """slime reads the coefficient only with --use-kl-loss."""
    used, weight, kind = flags.take("use_kl_loss"), flags.take("kl_loss_coef"), flags.take("kl_loss_type")
    found = number(weight.text if weight else "", 0.0)
    if used and found > 0 and draft.value("algorithm.loss", "") == "distillation":
        do = "choose one of the two: the teacher is the reference of the loss distillation"
        draft.lose(used, "there is one reference model", do, "result")
        for flag in (weight, kind):
            if flag:
                draft.skip(flag, "the KL is to the teacher")
        return
    if used and found > 0:
        draft.put("algorithm.kl_loss_coef", found, weight)
        draft.put(
            "algorithm.kl_loss_type", kind.text if kind else "k1", kind, "" if kind else "slime's default; k3 here"
        )
        return
    in_rewards = draft.value("algorithm.kl_coef", 0)  # whose estimate it is then
    for flag in (used, weight, None if in_rewards else kind):
        if flag:
            why = (
                "with a coefficient of 0 the KL has no effect" if not found else "without --use-kl-loss it is not read"
            )
            draft.skip(flag, why)


def _importance(flags: Flags, draft: Draft) -> None:
    used, own = flags.take("use_tis"), flags.take("custom_tis_function_path")
    high, low = flags.take("tis_clip"), flags.take("tis_clip_low")
    opsm, delta = flags.take("use_opsm"), flags.take("opsm_delta")
    if opsm:
        draft.put("algorithm.opsm_delta", number(delta.text if delta else "", 1e-4), delta or opsm)
    elif delta:
        draft.skip(delta, "without --use-opsm it is not read")
    if not used:
        for flag in (own, high, low):
            if flag:
                draft.skip(flag, "without --use-tis it is not read")
        return
    kind = "icepop" if own and "icepop" in own.text else "tis"
    if draft.value("algorithm.loss", "") == "gspo":
        kind = "sequence"
    draft.put("algorithm.importance", kind, used, "of a response, as gspo's ratio is" if kind == "sequence" else "")
    if own and kind != "icepop":
        do = "choose one of tis, icepop, sequence, mis, with their bounds (docs/algorithms.md)"
        draft.lose(own, "its function has another interface", do, "result")
    draft.put("algorithm.importance_low", number(low.text if low else "", 0.0), low)
    draft.put("algorithm.importance_high", number(high.text if high else "", 2.0), high)
