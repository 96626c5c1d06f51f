"""The parts that a run's samples come from: prompts, rollout, rewards and evaluation, or rows that hold the samples."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import NamedTuple

from core import data
from core.checks.dialogue import prompt_sections, refuse_template, rendering
from core.config.layout import num_engines, rewards_names, running_requests
from core.config.sections.data import DataConfig
from core.config.sections.eval import EvalConfig
from core.config.sections.rollout import RolloutConfig
from core.config.set_generation import generation_of, own_generations
from core.config.set_rewards import own_rewards, reward_of
from core.loop.evaluation import Evaluation
from core.loop.evaluation_samples import keep_evaluation
from core.loop.held_out import HeldOutLoss
from core.loop.parts import EvaluationPart, RolloutPart
from core.megatron.trainer import MegatronTrainer
from core.reward import RewardPool
from core.reward.remote import RemoteRewardPool
from core.reward.remote_directory import RewardDirectory
from core.reward.votes import VOTES
from core.rollout.group_filter import GroupFilter
from core.rollout.own import build_generator
from core.rollout.rollout import Rollout
from core.rollout.rows import RowRollout
from core.weights.sync import Sync
from launchers.rank.rank_engines import RankEngines
from launchers.rank.this_rank import ThisRank


class Samples(NamedTuple):
    """The parts that a run's samples come from."""

    rollout: RolloutPart
    evaluation: EvaluationPart
    counts: Callable[[], dict[str, float]]  # metrics of a step's groups
    prompts: data.PromptSource


def sampled(rank: ThisRank, engines: RankEngines, sync: Sync, stack: ExitStack) -> Samples:
    """Engines make them."""
    rollout = build_rollout(rank, engines, sync, stack)
    return Samples(
        rollout,
        build_evaluation(rank, rank.config.eval, rollout),
        rollout.take_counts,
        build_prompts(rank, rank.config.data, rank.config.rollout),
    )


def from_rows(rank: ThisRank, trainer: MegatronTrainer) -> Samples:
    """Rows hold them."""
    config = rank.config
    sets = {name: build_rows(rank, section) for name, section in config.eval.sets.items()}
    held_out = HeldOutLoss(config.eval, config.rollout, sets, trainer)
    return Samples(RowRollout(), held_out, dict, build_rows(rank, config.data))


def build_rows(rank: ThisRank, section: DataConfig) -> data.PromptSource:
    """What the rows of a data section teach, as this run's model writes it."""
    rollout = rank.config.rollout
    split = rollout.rewritten_past == "split"
    vocab_size, most = rank.shape.vocab_size, rollout.max_response_tokens
    return data.build_demonstrations(section, rank.tokenizer, vocab_size, most, split=split)


def build_rollout(rank: ThisRank, engines: RankEngines, sync: Sync, stack: ExitStack) -> Rollout:
    """Make the rollout, and start this node's processes for users' code if this rank drives the node."""
    rewards = build_rewards(rank)
    sections = prompt_sections(rank.config)
    renderings = {name: rendering(generation_of(rank.config, name), section) for name, section in sections}
    build = partial(build_generator, model_dir=rank.model_dir, decode=rank.tokenizer.decode, renderings=renderings)
    generator = build(rank.config.rollout, with_routing=rank.config.algorithm.routing_replay == "engine")
    of_sets = {name: build(one) for name, one in own_generations(rank.config).items()}
    if rank.drives:
        for made in (rewards, generator, *of_sets.values()):
            stack.enter_context(made)
    return Rollout(
        rank.rendezvous,
        engines.driven,
        sync,
        rank.tokenizer,
        rewards,
        max_running_requests=running_requests(rank.config, rank.device),
        num_engines=num_engines(rank.config),
        generator=generator,
        generators_of_sets=of_sets,
        group_filter=build_filter(rank, stack),
    )


def build_filter(rank: ThisRank, stack: ExitStack) -> GroupFilter:
    """What chooses groups; a function of the user's own gets its process beside rank 0."""
    config = rank.config
    share, timeout_s = config.reward.max_failed_share, config.reward.timeout_s
    made = GroupFilter(config.rollout, max_failed_share=share, timeout_s=timeout_s, first_rank=rank.first)
    return stack.enter_context(made)


def build_rewards(rank: ThisRank) -> RewardPool | RemoteRewardPool:
    """Scoring processes of this node, or the reward servers of others if there are any."""
    names = rewards_names(rank.config)
    if not names:
        return RewardPool(rank.config.reward, own_rewards(rank.config))
    directory = RewardDirectory(rank.rendezvous, names)
    return RemoteRewardPool(directory, rank.key, rank.config.placement.start_timeout_s)


def build_evaluation(rank: ThisRank, config: EvalConfig, rollout: Rollout) -> Evaluation:
    """Make the evaluation over the sets of the run file."""
    sets = {
        name: build_prompts(rank, section, generation_of(rank.config, name)) for name, section in config.sets.items()
    }
    keep = partial(keep_evaluation, rank.directory.path, rank.config) if rank.first else None
    answers_of = {name: VOTES.get(reward_of(rank.config, name).type) for name in sets}
    return Evaluation(config, rank.config.rollout, sets, rollout, rank.stop_token_ids, keep, answers_of)


def build_prompts(rank: ThisRank, section: DataConfig, rollout: RolloutConfig) -> data.PromptSource:
    """The prompts of a data section, for this run's model.

    Args:
        rollout: how they are answered.
    Raises:
        Wrong: its chat template does not do for a dialogue.
    """
    how = rendering(rollout, section)
    refuse_template(rollout, how, rank.tokenizer)
    return data.build(section, rank.tokenizer, rank.shape.vocab_size, how)
