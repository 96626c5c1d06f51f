"""Numbers of sampling, the loss, the learning rate and recompute, by themselves and against each other."""

from __future__ import annotations

from collections.abc import Iterator

from core.config.problem import Problem
from core.config.schema import RunConfig


def clip_range(config: RunConfig) -> Iterator[Problem]:
    """The upper clip is at least the lower one (clip-higher, DAPO)."""
    low, high = config.algorithm.eps_clip, config.algorithm.eps_clip_high
    if high is not None and high < low:
        yield Problem(
            "algorithm.eps_clip_high",
            None,
            f"{high}, below eps_clip {low}",
            f"eps_clip_high >= {low}",
            "leave it out to use eps_clip on both sides, or raise it",
        )


def top_k(config: RunConfig) -> Iterator[Problem]:
    """The engine refuses others."""
    found = config.rollout.top_k
    if found != -1 and found < 1:
        yield Problem("rollout.top_k", None, str(found), "1 or more, or -1", "leave it out to sample from all tokens")


def recomputed_layers(config: RunConfig) -> Iterator[Problem]:
    """A number of layers says nothing while none is recomputed."""
    train = config.train
    if train.recompute_layers is not None and train.recompute == "none":
        found = f"{train.recompute_layers} with recompute none"
        yield Problem("train.recompute_layers", None, found, "it only with full", "set train.recompute to full")


def learning_rate(config: RunConfig) -> Iterator[Problem]:
    """The schedule goes down from lr to min_lr, and its warm-up ends before the run does."""
    train = config.train
    if train.min_lr > train.lr:
        yield Problem(
            "train.min_lr",
            None,
            f"{train.min_lr}, above lr {train.lr}",
            f"min_lr <= {train.lr}",
            "lower min_lr, or raise lr",
        )
    total = config.rollout.num_rollout * train.num_steps_per_rollout
    if train.lr_warmup_steps > total:
        yield Problem(
            "train.lr_warmup_steps",
            None,
            f"{train.lr_warmup_steps} warm-up steps",
            f"at most the {total} optimiser steps of the run (num_rollout {config.rollout.num_rollout} × "
            f"num_steps_per_rollout {train.num_steps_per_rollout})",
            f"lower it to {total} or less, or raise num_rollout",
        )
