"""Numbers of sampling, the loss, the learning rate and recompute, by themselves and against each other."""

from __future__ import annotations

from collections.abc import Iterator

from common.mistake import Mistake
from core.checks.needs import needs_values
from core.config.schema import RunConfig


def clip_range(config: RunConfig) -> Iterator[Mistake]:
    """The upper clip is at least the lower one (clip-higher, DAPO), unless there is no lower bound (CISPO)."""
    low, high = config.algorithm.eps_clip, config.algorithm.eps_clip_high
    if high is not None and high < low < 1:
        yield Mistake(
            "algorithm.eps_clip_high",
            None,
            f"{high}, below eps_clip {low}",
            f"eps_clip_high >= {low}",
            "leave it out to use eps_clip on both sides, or raise it",
        )


def all_tokens_are_sampled_from(config: RunConfig) -> Iterator[Mistake]:
    """The trainer's log-probs are over all tokens: samples of fewer come from another distribution."""
    for key, off in (("top_p", 1.0), ("top_k", -1)):
        found = getattr(config.rollout, key)
        if found != off:
            wanted = f"{off:g}, as the trainer computes log-probs over all tokens, and samples of fewer do not fit them"
            remedy = f"remove it, and shape the samples by rollout.temperature; evaluations may set eval.{key}"
            yield Mistake(f"rollout.{key}", None, str(found), wanted, remedy)


def recomputed_layers(config: RunConfig) -> Iterator[Mistake]:
    """A number of layers says nothing while none is recomputed whole."""
    train = config.train
    if train.recompute_layers is not None and train.recompute != "full":
        found = f"recompute_layers {train.recompute_layers} and recompute {train.recompute}"
        remedy = "set train.recompute to full, or remove recompute_layers"
        yield Mistake("train.recompute_layers", None, found, "recompute full", remedy)


def recomputed_inputs(config: RunConfig) -> Iterator[Mistake]:
    """Only of layers that are recomputed whole are the inputs all that waits."""
    train = config.train
    if train.recompute_inputs == "host" and train.recompute != "full":
        found = f"recompute_inputs host and recompute {train.recompute}"
        remedy = "set train.recompute to full, or remove recompute_inputs"
        yield Mistake("train.recompute_inputs", None, found, "recompute full", remedy)


def learning_rate(config: RunConfig) -> Iterator[Mistake]:
    """The schedule goes down from lr to min_lr, and its warm-up ends before the run does."""
    train = config.train
    if train.min_lr > train.lr:
        yield Mistake(
            "train.min_lr",
            None,
            f"{train.min_lr}, above lr {train.lr}",
            f"min_lr <= {train.lr}",
            "lower min_lr, or raise lr",
        )
    yield from _decay(config)
    steps, alone = config.rollout.num_rollout, 0
    if needs_values(config.algorithm):  # the policy stays meanwhile, and its schedule begins afterwards
        alone = config.critic.num_critic_only_steps
    total = max(0, steps - alone) * train.num_steps_per_rollout
    rollouts = f"(num_rollout {steps} - {alone} of the critic alone)" if alone else f"num_rollout {steps}"
    if train.lr_warmup_steps > total:
        yield Mistake(
            "train.lr_warmup_steps",
            None,
            f"{train.lr_warmup_steps} warm-up steps",
            f"at most the {total} optimiser steps of the run ({rollouts} × "
            f"num_steps_per_rollout {train.num_steps_per_rollout})",
            f"lower it to {total} or less, or raise num_rollout",
        )


def _decay(config: RunConfig) -> Iterator[Mistake]:
    """A schedule of its own length goes down, and behind its warm-up."""
    train, key = config.train, "train.lr_decay_steps"
    if train.lr_decay_steps is None:
        return
    if train.lr_schedule == "constant":
        found, remedy = (
            f"{train.lr_decay_steps} with the schedule constant",
            "choose one of them, or remove lr_decay_steps",
        )
        yield Mistake(key, None, found, "lr_schedule linear or cosine", remedy)
    elif train.lr_decay_steps <= train.lr_warmup_steps:
        found = f"{train.lr_decay_steps}, of which {train.lr_warmup_steps} are of the warm-up"
        yield Mistake(key, None, found, f"more than {train.lr_warmup_steps}", "raise it, or lower lr_warmup_steps")
