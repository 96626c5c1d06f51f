"""Batch sizes against each other."""

from __future__ import annotations

from collections.abc import Iterator

from common.mistake import Mistake
from core.checks.needs import min_group_size
from core.config.schema import RunConfig
from core.doors import NO_FILTER


def samples_fill_optimiser_steps(config: RunConfig) -> Iterator[Mistake]:
    """Every sample of a step is used in exactly one optimiser step."""
    rollout, train = config.rollout, config.train
    made = rollout.rollout_batch_size * rollout.n_samples_per_prompt
    used = train.global_batch_size * train.num_steps_per_rollout
    if made == used:
        return
    fits = made % train.num_steps_per_rollout == 0
    remedy = f"set global_batch_size to {made // train.num_steps_per_rollout}" if fits else "change one of the four"
    yield Mistake(
        "train.global_batch_size",
        None,
        f"global_batch_size {train.global_batch_size} × num_steps_per_rollout {train.num_steps_per_rollout} = {used}",
        f"rollout_batch_size {rollout.rollout_batch_size} × n_samples_per_prompt {rollout.n_samples_per_prompt} = "
        f"{made}",
        remedy,
    )


def groups_are_chosen(config: RunConfig) -> Iterator[Mistake]:
    """Over-sampling and filter belong together: one draws more groups than are trained, the other chooses."""
    rollout, key = config.rollout, "rollout.over_sampling_batch_size"
    least, drawn, rounds = rollout.rollout_batch_size, rollout.over_sampling_batch_size, rollout.filter_rounds
    filters = rollout.filter != NO_FILTER
    if drawn is not None and drawn < least:
        wanted = f"at least the {least} groups that are trained (rollout_batch_size)"
        yield Mistake(key, None, str(drawn), wanted, f"raise it above {least}, or remove it")
    elif drawn is not None and drawn > least and not filters:
        wanted = f"a filter, as {least} of the {drawn} groups drawn are trained (rollout_batch_size)"
        yield Mistake(key, None, f"{drawn} without rollout.filter", wanted, "set filter to nonzero_std, or remove it")
    elif (drawn or least) == least and rounds == 1 and filters:
        found = f"{rollout.filter}, with {least} groups drawn and {least} trained"
        remedy = f"set over_sampling_batch_size above {least}, or filter_rounds above 1"
        yield Mistake("rollout.filter", None, found, "more groups to choose from", remedy)
    if rounds > 1 and not filters:
        wanted, remedy = "a filter that rejects groups", "set filter, or remove filter_rounds"
        yield Mistake("rollout.filter_rounds", None, f"{rounds} without rollout.filter", wanted, remedy)


def groups_have_peers(config: RunConfig) -> Iterator[Mistake]:
    """The advantage of a sample is taken over its group, whose size the estimator may ask for."""
    found, wanted = config.rollout.n_samples_per_prompt, min_group_size(config.algorithm)
    if found < wanted:
        yield Mistake(
            "rollout.n_samples_per_prompt",
            None,
            f"{found}, too few for an advantage over the group",
            f"at least {wanted} samples per prompt for advantage_estimator {config.algorithm.advantage_estimator}",
            f"set n_samples_per_prompt to {wanted} or more",
        )


def a_sample_fits_a_micro_batch(config: RunConfig) -> Iterator[Mistake]:
    """The longest possible sample, alone, is within the token budget."""
    prompt, response = config.data.max_prompt_tokens, config.rollout.max_response_tokens
    if config.train.max_tokens_per_micro_batch < prompt + response:
        yield Mistake(
            "train.max_tokens_per_micro_batch",
            None,
            f"a budget of {config.train.max_tokens_per_micro_batch} tokens",
            f"room for one sample of {prompt} prompt + {response} response = {prompt + response} tokens",
            f"raise it to {prompt + response} or more, or lower max_prompt_tokens or max_response_tokens",
        )
