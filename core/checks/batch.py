"""Batch sizes against each other."""

from __future__ import annotations

from collections.abc import Iterator

from common.mistake import Mistake
from core.checks.needs import min_group_size
from core.config.schema import RunConfig
from core.doors import FILTER, NO_FILTER, ONE_TURN


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
    elif drawn is not None and drawn > least and not filters and rollout.carry_over_tokens is None:
        wanted = f"a filter, as {least} of the {drawn} groups drawn are trained (rollout_batch_size)"
        remedy = "set filter to nonzero_std, or carry_over_tokens, or remove it"
        yield Mistake(key, None, f"{drawn} without rollout.filter", wanted, remedy)
    elif (drawn or least) == least and rounds == 1 and filters:
        found = f"{rollout.filter}, with {least} groups drawn and {least} trained"
        remedy = f"set over_sampling_batch_size above {least}, or filter_rounds above 1"
        yield Mistake("rollout.filter", None, found, "more groups to choose from", remedy)
    if filters and rollout.filter in FILTER.builtins and rollout.generate == ONE_TURN:
        yield from _rewards_may_differ(config)
    if rounds > 1 and not filters:
        wanted, remedy = "a filter that rejects groups", "set filter, or remove filter_rounds"
        yield Mistake("rollout.filter_rounds", None, f"{rounds} without rollout.filter", wanted, remedy)


def _rewards_may_differ(config: RunConfig) -> Iterator[Mistake]:
    if config.rollout.n_samples_per_prompt == 1:
        found = f"{config.rollout.filter} with n_samples_per_prompt 1"
        remedy = "raise n_samples_per_prompt, or remove filter"
        yield Mistake("rollout.filter", None, found, "groups of several samples, whose rewards may differ", remedy)


def groups_are_carried_over(config: RunConfig) -> Iterator[Mistake]:
    """Carry-over wants groups to leave for the next step, and responses that an engine can go on with."""
    rollout, key = config.rollout, "rollout.carry_over_tokens"
    tokens, trained = rollout.carry_over_tokens, rollout.rollout_batch_size
    drawn = rollout.num_drawn
    if tokens is None:
        if rollout.mask_carried:
            found, remedy = "true without carry_over_tokens", "remove it, or set carry_over_tokens"
            yield Mistake("rollout.mask_carried", None, found, "tokens that are carried over", remedy)
        return
    if rollout.generate != ONE_TURN:
        wanted = f"{ONE_TURN} with it, as what another function has begun cannot go on in another step"
        yield Mistake(key, None, f"{tokens} and generate {rollout.generate}", wanted, "remove carry_over_tokens")
    if tokens >= rollout.max_response_tokens:
        found = f"{tokens}, and max_response_tokens {rollout.max_response_tokens}"
        remedy = f"lower it to {max(1, rollout.max_response_tokens // 8)}, say, or remove it"
        yield Mistake(key, None, found, "less than a whole response", remedy)
    if drawn <= trained:
        found = f"{tokens}, with {drawn} groups drawn and {trained} trained"
        remedy = f"set over_sampling_batch_size to {2 * trained}, say"
        yield Mistake(key, None, found, "more groups drawn than trained, so that some can be left", remedy)
    least_steps = -(-(drawn - trained) // trained)
    if rollout.carry_over_steps < least_steps:
        found = f"{rollout.carry_over_steps}, with {drawn} groups drawn and {trained} trained"
        wanted = f"at least the {least_steps} steps in which what is left over can be trained"
        remedy = f"raise it to {least_steps}, or lower over_sampling_batch_size"
        yield Mistake("rollout.carry_over_steps", None, found, wanted, remedy)


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
    if config.train.max_tokens_per_micro_batch < config.sample_tokens:
        yield Mistake(
            "train.max_tokens_per_micro_batch",
            None,
            f"a budget of {config.train.max_tokens_per_micro_batch} tokens",
            f"room for one sample of {prompt} prompt + {response} response = {config.sample_tokens} tokens",
            f"raise it to {config.sample_tokens} or more, or lower max_prompt_tokens or max_response_tokens",
        )
