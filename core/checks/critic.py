"""Settings of a critic: there is one where the advantage needs values, and only there."""

from __future__ import annotations

from collections.abc import Iterator

from common.mistake import Mistake, show
from core.checks.function import definition, python_function
from core.checks.needs import needs_values, reads_advantages
from core.checks.signature import Signature
from core.config.schema import RunConfig
from core.config.sections.critic import CriticConfig
from core.config.sections.train import TrainConfig
from core.doors import ADVANTAGE, LOSS, VALUES


def keys_have_a_critic(config: RunConfig) -> Iterator[Mistake]:
    """A key of `critic` says nothing without one."""
    if needs_values(config.algorithm):
        return
    for key, field in CriticConfig.model_fields.items():
        found = getattr(config.critic, key)
        if found != field.default:
            said = f"{show(found)}, and no critic, as {config.algorithm.advantage_estimator} needs no values"
            remedy = f"remove it, or set {ADVANTAGE.key} to gae"
            yield Mistake(f"critic.{key}", None, said, "an advantage that needs values, gae", remedy)


def values_are_asked_for(config: RunConfig) -> Iterator[Mistake]:
    """An estimator that takes a critic's values says so, and the other way round: by that there is a critic."""
    place = ADVANTAGE.place(config.algorithm.advantage_estimator)
    if any(python_function(ADVANTAGE.key, place)) or (found := definition(place)) is None:
        return  # which its door reports
    made = Signature.of(found)
    called = made if made.methods is None else made.call
    takes, says = called is not None and VALUES in called.names, needs_values(config.algorithm)
    if takes != says and not (called is None or called.any_name):
        said = f"needs_values {says} and {'a' if takes else 'no'} parameter {VALUES} of {place}"
        wanted = f"needs_values = True with a parameter {VALUES}, or neither"
        yield Mistake(ADVANTAGE.key, None, said, wanted, "correct it")


def advantages_are_read(config: RunConfig) -> Iterator[Mistake]:
    """A critic behind a loss that reads no advantage would learn for nobody."""
    if needs_values(config.algorithm) and not reads_advantages(config.algorithm):
        name = config.algorithm.advantage_estimator
        found = f"{config.algorithm.loss}, which reads no advantage, with {name}, which needs a critic for it"
        remedy = f"choose another loss, clipped, or another advantage than {name}"
        yield Mistake(LOSS.key, None, found, "a loss that reads advantages", remedy)


def state_is_resident(config: RunConfig) -> Iterator[Mistake]:
    """Adam's state does not stream where there are two models: that is not made."""
    if needs_values(config.algorithm) and config.train.optimizer_state == "streamed":
        remedy = "set it to resident, and spread the state by train.use_distributed_optimizer or more GPUs"
        found = f"streamed with {config.algorithm.advantage_estimator}, which has a critic"
        yield Mistake("train.optimizer_state", None, found, "resident", remedy)


def weights_are_whole(config: RunConfig) -> Iterator[Mistake]:
    """A critic is trained whole: beside a policy of which only adapters are trained that is not made."""
    if needs_values(config.algorithm) and config.train.lora is not None:
        found = (
            f"adapters of rank {config.train.lora.rank} with {config.algorithm.advantage_estimator}, which has a critic"
        )
        remedy = f"remove it, or choose another {ADVANTAGE.key}, grpo"
        yield Mistake("train.lora", None, found, "training of all weights", remedy)


def policy_learns(config: RunConfig) -> Iterator[Mistake]:
    """The critic's own steps leave steps for the policy."""
    alone, steps = config.critic.num_critic_only_steps, config.rollout.num_rollout
    if needs_values(config.algorithm) and alone >= steps:
        wanted = f"fewer than the {steps} steps of the run (rollout.num_rollout)"
        yield Mistake("critic.num_critic_only_steps", None, str(alone), wanted, "lower it, or raise num_rollout")


def learning_rate(config: RunConfig) -> Iterator[Mistake]:
    """The critic's schedule goes down too, to the same end, and its warm-up ends before the run does."""
    if not needs_values(config.algorithm):
        return
    own, train = critic_settings(config), config.train
    if train.min_lr > own.lr:
        found, wanted = f"{own.lr}, below train.min_lr {train.min_lr}", f"lr >= {train.min_lr}"
        yield Mistake("critic.lr", None, found, wanted, "raise it, or lower train.min_lr")
    total = config.rollout.num_rollout * train.num_steps_per_rollout
    if own.lr_warmup_steps > total:
        found, wanted = f"{own.lr_warmup_steps} warm-up steps", f"at most the {total} optimiser steps of the run"
        yield Mistake("critic.lr_warmup_steps", None, found, wanted, f"lower it to {total} or less")


def critic_settings(config: RunConfig) -> TrainConfig:
    """The critic's settings of `train`: the run's, but for those of its own."""
    own = {"lr": config.critic.lr, "lr_warmup_steps": config.critic.lr_warmup_steps}
    return config.train.model_copy(update={key: value for key, value in own.items() if value is not None})
