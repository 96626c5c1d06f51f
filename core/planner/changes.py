"""Settings of a run file that a remedy would change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from common.mistake import Mistake
from core.checks import (
    batch,
    engine_values,
    engine_weights,
    frozen,
    lora,
    model,
    overlap,
    parallel,
    schedule,
    slurm,
    stages,
)
from core.config.layout import pipeline_stages
from core.config.schema import RunConfig
from modelcfg import ModelShape
from modelcfg.stages import balanced

Changes = Mapping[str, Any]

SIZE_RULES = (
    batch.a_sample_fits_a_micro_batch,
    parallel.ranks_divide,
    parallel.experts_divide,
    parallel.batch_divides_over_replicas,
    stages.ends_have_a_pipeline,
)
OF_SHAPE = (
    model.shape_divides,
    frozen.names_are_parameters,
    frozen.parameters_are_whole,
    frozen.stages_have_work,
    lora.targets_are_layers,
    lora.stages_have_adapters,
    engine_weights.sizes_fit,
    engine_values.experts_are_shared_out,
)
CHANGE_RULES = (
    *SIZE_RULES,
    parallel.sequence_parallel_has_peers,
    parallel.engines_fit_devices,
    parallel.engines_fit_nodes,
    parallel.own_gpus_are_not_shared,
    overlap.overlapping_phases,
    schedule.recomputed_layers,
    slurm.trainers_have_their_nodes,
    slurm.gpus_suffice,
)


def size_problems(config: RunConfig, shape: ModelShape | None) -> list[Mistake]:
    """What a plan cannot be made of: sizes that do not divide, samples that fit no row."""
    of_shape = (problem for rule in OF_SHAPE for problem in rule(config, shape))
    return [*(problem for rule in SIZE_RULES for problem in rule(config)), *of_shape]


def accepted(config: RunConfig, shape: ModelShape) -> bool:
    """Whether a run file with other sizes would pass the checks that these touch."""
    of_shape = (problem for rule in OF_SHAPE for problem in rule(config, shape))
    return not any(problem for rule in CHANGE_RULES for problem in rule(config)) and next(of_shape, None) is None


def apply(config: RunConfig, changes: Changes) -> RunConfig:
    """The run file with other values, as `--set` would change it."""
    for key, value in changes.items():
        section, _, name = key.partition(".")
        changed = getattr(config, section).model_copy(update={name: value})
        config = config.model_copy(update={section: changed})
    return config


def pipeline_changes(config: RunConfig, shape: ModelShape, number: int) -> Changes:
    """A number of pipeline stages, and where the run file's lengths do not go with it, a last stage that does."""
    own = pipeline_stages(config.placement)._replace(number=number)
    if own.number != config.placement.pipeline_parallel or not own.add_up(shape.num_layers):
        own = balanced(number, shape.num_layers)
    keys = ("parallel", "first_layers", "last_layers")
    return without_present(config, {f"placement.pipeline_{key}": value for key, value in zip(keys, own, strict=True)})


def without_present(config: RunConfig, changes: Changes) -> Changes:
    """The changes that change something."""
    return {key: value for key, value in changes.items() if value != present(config, key)}


def present(config: RunConfig, key: str) -> Any:
    """The value of a key of a section."""
    section, _, name = key.partition(".")
    return getattr(getattr(config, section), name)


def in_words(changes: Changes) -> str:
    """train.recompute: full and placement.tensor_parallel: 2"""
    return " and ".join(f"{key}: {_value(value)}" for key, value in changes.items())


def _value(value: Any) -> str:
    return "null" if value is None else str(value).lower()
