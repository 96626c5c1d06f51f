"""Rules that need more than one key, or the file system: what a login node can know before anything is submitted.

Each rule names the sections it reads. It is passed over while one of them is missing, because mistakes in the section
itself come first.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from common.mistake import Mistake
from core.checks import (
    algorithm,
    attention_groups,
    batch,
    chat_template,
    critic,
    data,
    dialogue,
    doors,
    draft_model,
    engine_options,
    engine_values,
    engine_weights,
    evaluation,
    frozen,
    generation,
    lora,
    model,
    names,
    overlap,
    parallel,
    reward,
    routing,
    rows,
    schedule,
    sinks,
    slurm,
    speculation,
    stages,
    untrained,
)
from core.checks.model_files import ModelFiles
from core.config.schema import RunConfig
from core.doors import DOORS


@dataclass(frozen=True)
class Rule:
    """A check and the sections it reads; one `of_training` is passed over where nothing is trained."""

    check: Callable[[RunConfig], Iterator[Mistake]]
    sections: tuple[str, ...]
    of_training: bool = False


DOOR_SECTIONS = tuple(sorted({door.key.partition(".")[0] for door in DOORS}))
JOB_RULES = (
    Rule(names.run_name, ("name",)),
    Rule(slurm.time_limit, ("slurm",)),
    Rule(slurm.parts_of_the_job, ("slurm",)),
    Rule(slurm.trainers_have_their_nodes, ("placement", "slurm")),
    Rule(slurm.gpus_suffice, ("placement", "reward", "slurm")),
    Rule(parallel.engines_fit_nodes, ("placement", "reward", "slurm")),
    Rule(slurm.node_names, ("slurm",)),
    Rule(slurm.variables, ("slurm",)),
)
"""What a job plan is made of: neither data nor model."""
RULES = (
    Rule(batch.samples_fill_optimiser_steps, ("rollout", "train"), of_training=True),
    Rule(batch.groups_are_chosen, ("rollout",)),
    Rule(batch.groups_are_carried_over, ("rollout",)),
    Rule(batch.groups_have_peers, ("algorithm", "rollout"), of_training=True),
    Rule(batch.a_sample_fits_a_micro_batch, ("data", "rollout", "train"), of_training=True),
    Rule(parallel.ranks_divide, ("placement",)),
    Rule(parallel.experts_divide, ("placement",)),
    Rule(parallel.batch_divides_over_replicas, ("placement", "train"), of_training=True),
    Rule(parallel.sequence_parallel_has_peers, ("placement",)),
    Rule(stages.ends_have_a_pipeline, ("placement",)),
    Rule(lora.the_base_is_the_reference, ("model", "train")),
    Rule(frozen.said_once, ("train",)),
    Rule(parallel.engines_fit_devices, ("placement",)),
    Rule(parallel.own_gpus_are_not_shared, ("placement",)),
    Rule(doors.doors, DOOR_SECTIONS),
    Rule(rows.rows_or_engines, ("algorithm", "placement", "rollout")),
    Rule(rows.nothing_is_sampled, ("eval", "placement", "reward", "rollout", "slurm")),
    Rule(rows.nothing_is_weighed, ("algorithm", "rollout")),
    Rule(algorithm.keys_have_readers, ("algorithm",)),
    Rule(algorithm.importance, ("algorithm",)),
    Rule(algorithm.kl_in_one_place, ("algorithm",)),
    Rule(algorithm.reference_follows, ("algorithm", "train")),
    Rule(algorithm.teacher_is_another, ("algorithm", "model")),
    Rule(algorithm.reference_is_read, ("algorithm", "model", "train"), of_training=True),
    Rule(routing.there_is_a_later_pass, ("algorithm", "placement", "rollout", "train"), of_training=True),
    Rule(critic.keys_have_a_critic, ("algorithm", "critic")),
    Rule(critic.values_are_asked_for, ("algorithm",)),
    Rule(critic.advantages_are_read, ("algorithm",)),
    Rule(critic.state_is_resident, ("algorithm", "train")),
    Rule(critic.weights_are_whole, ("algorithm", "train")),
    Rule(critic.policy_learns, ("algorithm", "critic", "rollout")),
    Rule(critic.learning_rate, ("algorithm", "critic", "rollout", "train")),
    Rule(engine_options.engine_options, ("placement",)),
    Rule(engine_values.of_themselves, ("placement",)),
    Rule(engine_values.experts_stay, ("placement",)),
    Rule(speculation.drafts, ("placement",)),
    Rule(speculation.beside_other_keys, ("algorithm", "placement", "rollout")),
    Rule(attention_groups.groups_are_of_one_engine, ("placement",)),
    Rule(engine_weights.few_bits_have_their_keys, ("model", "placement")),
    Rule(overlap.overlapping_phases, ("placement",)),
    Rule(overlap.what_is_left_is_kept, ("placement", "rollout")),
    Rule(untrained.nothing_is_trained, ("checkpoint", "eval", "placement")),
    Rule(sinks.sinks, ("logging",)),
    Rule(generation.is_asynchronous, ("rollout",)),
    Rule(generation.of_sets, ("eval", "rollout")),
    Rule(dialogue.who_speaks, ("rollout",)),
    Rule(dialogue.tools, ("rollout",)),
    Rule(dialogue.prompts_are_messages, ("data", "eval", "rollout")),
    Rule(dialogue.reward_of_steps, ("eval", "reward", "rollout")),
    Rule(dialogue.templates, ("data", "eval", "model", "rollout")),
    Rule(schedule.all_tokens_are_sampled_from, ("rollout",)),
    Rule(schedule.clip_range, ("algorithm",)),
    Rule(schedule.learning_rate, ("algorithm", "critic", "rollout", "train"), of_training=True),
    Rule(schedule.recomputed_layers, ("train",)),
    Rule(schedule.recomputed_inputs, ("train",)),
    Rule(chat_template.is_there, ("data", "eval", "model")),
    Rule(chat_template.options_are_read, ("data", "eval", "model")),
    Rule(model.reference_has_the_vocabulary, ("model",)),
    Rule(data.training_data, ("data", "reward", "rollout"), of_training=True),
    Rule(reward.settings, ("reward",)),
    Rule(reward.settings_of_sets, ("eval", "reward")),
    Rule(reward.overlong_buffer, ("reward", "rollout")),
    Rule(reward.reasoning_gym_scores_its_own, ("data", "eval", "reward")),
    Rule(evaluation.sets, ("eval", "reward", "rollout")),
    Rule(evaluation.sampling, ("eval",)),
    Rule(evaluation.votes, ("eval", "reward")),
    *JOB_RULES,
)


def model_rules(files: ModelFiles) -> tuple[Rule, ...]:
    """The rules that read the model's files."""
    return (
        Rule(lambda config: model.directories(config, files), ("model",)),
        Rule(lambda config: model.name_and_shape(config, files), ("model",)),
        Rule(lambda config: model.shape_divides(config, files.shape(config.model)), ("model", "placement")),
        Rule(lambda config: untrained.engines_read_the_weights(config, files), ("model", "placement")),
        Rule(lambda config: model.engines_serve_it(config, files.shape(config.model)), ("model", "placement")),
        Rule(lambda config: engine_weights.sizes_fit(config, files.shape(config.model)), ("model", "placement")),
        Rule(
            lambda config: engine_values.context_holds_samples(config, files.shape(config.model)),
            ("data", "model", "placement", "rollout"),
        ),
        Rule(
            lambda config: engine_values.experts_are_shared_out(config, files.shape(config.model)),
            ("model", "placement"),
        ),
        Rule(
            lambda config: speculation.states_are_not_drafted(config, files.shape(config.model)), ("model", "placement")
        ),
        Rule(lambda config: draft_model.draft_model_fits(config, files), ("model", "placement")),
        Rule(
            lambda config: attention_groups.family_has_groups(config, files.shape(config.model)), ("model", "placement")
        ),
        Rule(lambda config: frozen.names_are_parameters(config, files.shape(config.model)), ("model", "train")),
        Rule(lambda config: frozen.parameters_are_whole(config, files.shape(config.model)), ("model", "train")),
        Rule(
            lambda config: frozen.stages_have_work(config, files.shape(config.model)), ("model", "placement", "train")
        ),
        Rule(lambda config: lora.targets_are_layers(config, files.shape(config.model)), ("model", "train")),
        Rule(lambda config: lora.rank_is_of_a_layer(config, files.shape(config.model)), ("model", "train")),
        Rule(
            lambda config: lora.stages_have_adapters(config, files.shape(config.model)),
            ("model", "placement", "train"),
        ),
        Rule(
            lambda config: routing.the_model_has_experts(config, files.shape(config.model)),
            ("algorithm", "model"),
            of_training=True,
        ),
        Rule(
            lambda config: routing.engines_tell_of_them(config, files.shape(config.model)),
            ("algorithm", "model"),
            of_training=True,
        ),
        Rule(
            lambda config: model.positions_suffice(config, files.shape(config.model)),
            ("data", "eval", "model", "rollout"),
        ),
    )


def check_job(config: RunConfig) -> list[Mistake]:
    """The problems of the parts of a run file that a job plan is made of; no file is read."""
    return [problem for rule in JOB_RULES for problem in rule.check(config)]


def check_sections(config: RunConfig, sections: Collection[str]) -> list[Mistake]:
    """The problems that these sections of a whole run file show by themselves; neither data nor model is read."""
    rules = [rule for rule in RULES if set(rule.sections) <= set(sections)]
    return [problem for rule in rules for problem in rule.check(config)]


def check_run(config: RunConfig, files: ModelFiles | None = None) -> list[Mistake]:
    """All problems of a run that one key alone does not show; empty if there are none.

    Reads the data source, and `config.json` and headers of the checkpoint; calls the data function if the source is
    `python`. Paths are taken as they are, so `config` should come from `load_run_file`.

    Args:
        files: shared with others who ask for the model's shape; left out: of this check alone.
    """
    rules = [*RULES, *model_rules(files or ModelFiles())]
    rules = [rule for rule in rules if all(hasattr(config, section) for section in rule.sections)]
    if hasattr(config, "placement") and config.placement.trainers == "none":
        rules = [rule for rule in rules if not rule.of_training]
    return [problem for rule in rules for problem in rule.check(config)]
