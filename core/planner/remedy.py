"""Settings under which a plan fits, found by planning again with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from core.config.checks import batch, model, parallel
from core.config.problem import Problem
from core.config.schema import RunConfig
from core.planner.engine import sample_tokens
from core.planner.memory import Device, plan_memory
from core.residency.table import TABLE
from modelcfg import ModelShape

STEP_TOKENS = 256
MOST_SHOWN = 4
TIGHT = 0.95  # of the device: beyond it, fragments of freed memory may be missing
SIZES = (2, 4, 8)
RULES = (
    batch.a_sample_fits_a_micro_batch,
    parallel.ranks_divide,
    parallel.batch_divides_over_replicas,
    model.shape_divides,
)

GENERATING = ("rollout", "eval")
TRAINING = tuple(phase for phase in TABLE if phase not in GENERATING)

Changes = Mapping[str, Any]


def update_remedy(config: RunConfig, shape: ModelShape, device: Device) -> str:
    """What to set so that training fits, and if possible not tightly: single changes, else several at once."""
    found = _changes(config, shape, device, TIGHT) or _changes(config, shape, device, 1.0)
    if not found:
        return "use GPUs with more memory, or more of them: no setting of these keys makes it fit on 8 per node"
    return "set " + ", or ".join(_text(changes) for changes in found[:MOST_SHOWN])


def _changes(config: RunConfig, shape: ModelShape, device: Device, share: float) -> list[Changes]:
    found = list(_first_of_each(config, shape, device, share))
    if all("placement.tensor_parallel" in changes for changes in found):  # which costs more time than the others
        at_once = (c for c in _together(config) if _fits(config, c, shape, device, share))
        found = [*([first] if (first := next(at_once, None)) else []), *found]
    return found


def engine_remedy(config: RunConfig, shape: ModelShape, device: Device, samples: int) -> str:
    """A share of the GPU with which the KV cache has room for so many samples; empty if there is none."""
    for changes in _shares(config):
        changed = apply(config, changes)
        plan = plan_memory(changed, shape, device)
        if plan.fits(GENERATING) and plan.cache.samples(sample_tokens(config)) >= samples:
            return "set " + _text(changes)
    least = "1" if samples == 1 else str(samples)
    return (
        "" if samples > 1 else f"use GPUs with more memory, or a smaller model: no share of a GPU has room for {least}"
    )


def size_problems(config: RunConfig) -> list[Problem]:
    """What a plan cannot be made of: sizes that do not divide, samples that fit no row."""
    return [problem for rule in RULES for problem in rule(config)]


def apply(config: RunConfig, changes: Changes) -> RunConfig:
    """The run file with other values, as `--set` would change it."""
    for key, value in changes.items():
        section, _, name = key.partition(".")
        changed = getattr(config, section).model_copy(update={name: value})
        config = config.model_copy(update={section: changed})
    return config


def _first_of_each(config: RunConfig, shape: ModelShape, device: Device, share: float) -> Iterator[Changes]:
    for kind in (_offload, _tokens, _recompute, _distributed, _tensor_parallel):
        fitting = (changes for changes in kind(config) if _fits(config, changes, shape, device, share))
        if (first := next(fitting, None)) is not None:
            yield first


def _offload(config: RunConfig) -> Iterator[Changes]:
    if config.placement.offload == "off":
        yield {"placement.offload": "auto"}


def _tokens(config: RunConfig) -> Iterator[Changes]:
    """Larger budgets first; the least is one that holds the longest sample."""
    least = sample_tokens(config)
    for tokens in range(config.train.max_tokens_per_micro_batch - 1, least - 1, -1):
        if tokens % STEP_TOKENS == 0 or tokens == least:
            yield {"train.max_tokens_per_micro_batch": tokens}


def _recompute(config: RunConfig) -> Iterator[Changes]:
    """As few layers as possible."""
    shape = model.known_shape(config)
    layers = shape.num_layers // config.placement.pipeline_parallel if shape else 0
    before = (config.train.recompute_layers or layers) if config.train.recompute == "full" else 0
    for count in range(before + 1, layers):
        yield {"train.recompute": "full", "train.recompute_layers": count}
    if before < layers:
        yield _all_layers()


def _all_layers() -> Changes:
    return {"train.recompute": "full", "train.recompute_layers": None}


def _distributed(config: RunConfig) -> Iterator[Changes]:
    replicas = parallel.num_trainers(config.placement) // parallel.replica_size(config.placement)
    if replicas > 1 and not config.train.use_distributed_optimizer:
        yield {"train.use_distributed_optimizer": True}


def _tensor_parallel(config: RunConfig) -> Iterator[Changes]:
    placement = config.placement
    for size in SIZES:
        if placement.tensor_parallel < size <= placement.trainers_per_node:
            yield {"placement.tensor_parallel": size}


def _together(config: RunConfig) -> Iterator[Changes]:
    """Ever more at once: what costs least time first; at last with more GPUs per node."""
    changes: dict[str, Any] = {}
    for kind in (_offload, _distributed):
        changes |= next(kind(config), {})
    changes |= _all_layers()
    yield dict(changes)
    yield from ({**changes, **tokens} for tokens in _tokens(config))
    for size in SIZES:
        if size > config.placement.tensor_parallel:
            more = {"placement.tensor_parallel": size, "placement.sequence_parallel": True}
            if size > config.placement.trainers_per_node:
                more["placement.trainers_per_node"] = size
            yield {**changes, **more}
            yield from ({**changes, **more, **tokens} for tokens in _tokens(config))


def _shares(config: RunConfig) -> Iterator[Changes]:
    placement = config.placement
    present = round(placement.engine_memory_fraction * 100)
    nearest = sorted(range(5, 96), key=lambda percent: abs(percent - present))
    for size in (placement.engine_tensor_parallel, *SIZES):
        if size == placement.engine_tensor_parallel:
            yield from ({"placement.engine_memory_fraction": percent / 100} for percent in nearest)
        elif placement.engine_tensor_parallel < size <= placement.trainers_per_node // placement.engines_per_node:
            yield {"placement.engine_tensor_parallel": size}


def _fits(config: RunConfig, changes: Changes, shape: ModelShape, device: Device, share: float) -> bool:
    changed = apply(config, changes)
    return not size_problems(changed) and plan_memory(changed, shape, device).fits(TRAINING, share)


def _text(changes: Changes) -> str:
    shown = {key: value for key, value in changes.items() if value is not None}
    return " and ".join(f"{key}: {str(value).lower()}" for key, value in shown.items())
