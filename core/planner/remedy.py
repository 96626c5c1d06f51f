"""Settings under which a plan fits, found by planning again with them, in the words of a message."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from common.units import GIB
from core.checks import parallel
from core.checks.needs import needs_values
from core.config.layout import pipeline_stages
from core.config.schema import RunConfig
from core.planner.changes import Changes, accepted, apply, in_words, pipeline_changes, present, without_present
from core.planner.decisions import plan_memory
from core.planner.engine_room import engine_changes, engine_splits
from core.planner.machine import SIZES, machine_of
from core.planner.memory import TIGHT, TRAINING, Device
from core.planner.search import ALL_LAYERS, budgets, first_that, on_machine, smallest_machine, tried
from modelcfg import ModelShape

MOST_SHOWN = 4
LAYOUTS_SHOWN = 2
TENSOR = "placement.tensor_parallel"
PIPELINE = "placement.pipeline_parallel"
CONTEXT = "placement.context_parallel"
LONG_SAMPLE = 16384  # tokens: shorter ones are better given to a rank each
SPLITS = (TENSOR, "placement.expert_parallel", PIPELINE)


def update_remedy(config: RunConfig, shape: ModelShape, device: Device) -> str:
    """What to set so that training fits, and if possible not tightly: single changes, layouts, another machine."""
    here = roomy_remedy(config, shape, device) or _here(config, shape, device, 1.0)
    return here or machine_remedy(config, shape, device)


def roomy_remedy(config: RunConfig, shape: ModelShape, device: Device) -> str:
    """What to set on this machine so that training fits with room to spare; "": nothing does that."""
    return _here(config, shape, device, TIGHT)


def _here(config: RunConfig, shape: ModelShape, device: Device, share: float) -> str:
    found = list(_single(config, shape, device, share))
    if all(_is_split(changes) for changes in found):  # which costs more time than the others
        there = on_machine(config, shape, device, machine_of(config), share)
        found = [*islice(there, LAYOUTS_SHOWN), *found]
    return "set " + ", or ".join(in_words(changes) for changes in found[:MOST_SHOWN]) if found else ""


def engine_remedy(config: RunConfig, shape: ModelShape, device: Device, samples: int, least: int = 1) -> str:
    """A share of the GPU with which the KV cache has room for these samples, or for `least` of them; "": none."""
    changes = engine_changes(config, shape, device, samples, least)
    return "" if changes is None else "set " + in_words(changes)


def machine_remedy(config: RunConfig, shape: ModelShape, device: Device) -> str:
    """The smallest machine on which the whole run fits; what was tried on this one."""
    found = smallest_machine(config, shape, device, TIGHT) or smallest_machine(config, shape, device, 1.0)
    failed = f"on {machine_of(config)} no layout fits (tried: {_tried(config, shape)})"
    if found is None:
        return f"use a smaller model, or shorter samples: {failed}, nor on any larger machine"
    changed = f"set {in_words(found.changes)}, for" if found.changes else "use"
    of_size = "" if found.device == device else f" of {(found.device.total_bytes or 0) / GIB:.1f} GiB"
    return f"{changed} {found.machine}{of_size}, the smallest machine that would do; {failed}"


def _tried(config: RunConfig, shape: ModelShape) -> str:
    sizes = {key: values for key, values in tried(config, shape, machine_of(config)).items() if values != [1]}
    shown = [f"{key} {', '.join(map(str, values))}" for key, values in sizes.items() if values]
    rows = f"rows down to {config.sample_tokens} tokens"
    streams = [] if needs_values(config.algorithm) else ["an optimizer state that streams"]
    return ", ".join([*shown, "all layers recomputed", rows, *streams])


def _is_split(changes: Changes) -> bool:
    return any(key in changes for key in (*SPLITS, CONTEXT))


def _single(config: RunConfig, shape: ModelShape, device: Device, share: float) -> Iterator[Changes]:
    """The least change of each kind that fits; each by itself, beside what the engine needs anyway."""
    beside = engine_changes(config, shape, device, 1) or {}

    def fits(changes: Changes) -> bool:
        changed = apply(config, {**beside, **changes})
        return accepted(changed, shape) and plan_memory(changed, shape, device).fits(TRAINING, share)

    for ladder in (
        _offload(config),
        budgets(config),
        _recompute(config, shape),
        _inputs(config),
        _distributed(config),
        _streamed(config),
        _context(apply(config, beside), shape),
        *(_split(apply(config, beside), shape, key) for key in SPLITS),
        [changes for changes in engine_splits(config, device) if changes],
    ):
        if (first := first_that(ladder, fits)) is not None:
            yield without_present(config, first)


def _offload(config: RunConfig) -> list[Changes]:
    return [{"placement.offload": "auto"}] if config.placement.offload == "off" else []


def _streamed(config: RunConfig) -> list[Changes]:
    may_stream = config.train.optimizer_state == "resident" and not needs_values(config.algorithm)
    return [{"train.optimizer_state": "auto"}] if may_stream else []


def _recompute(config: RunConfig, shape: ModelShape) -> list[Changes]:
    """Settings that recompute layers, the smallest number of layers first."""
    layers = max(map(len, pipeline_stages(config.placement).layers(shape.num_layers)))
    before = (config.train.recompute_layers or layers) if config.train.recompute == "full" else 0
    some = [{"train.recompute": "full", "train.recompute_layers": count} for count in range(before + 1, layers)]
    return [*some, *([ALL_LAYERS] if before < layers else [])]


def _inputs(config: RunConfig) -> list[Changes]:
    """Inputs of recomputed layers on the host, where rows are long enough that copying them takes no time."""
    fresh = config.train.recompute_inputs == "device" and config.sample_tokens >= LONG_SAMPLE
    return [{**ALL_LAYERS, "train.recompute_inputs": "host"}] if fresh else []


def _distributed(config: RunConfig) -> list[Changes]:
    replicas = parallel.num_trainers(config.placement) // parallel.replica_size(config.placement)
    fresh = replicas > 1 and not config.train.use_distributed_optimizer
    return [{"train.use_distributed_optimizer": True}] if fresh else []


def _context(config: RunConfig, shape: ModelShape) -> list[Changes]:
    """Long rows over more ranks."""
    return _split(config, shape, CONTEXT) if config.sample_tokens >= LONG_SAMPLE else []


def _split(config: RunConfig, shape: ModelShape, key: str) -> list[Changes]:
    """Larger sizes of one kind that the checks accept; layers are split within a node."""
    most = config.placement.trainers_per_node if key == TENSOR else parallel.num_trainers(config.placement)
    larger = [size for size in SIZES if present(config, key) < size <= most]
    if key == PIPELINE:
        found = [pipeline_changes(config, shape, size) for size in larger if size <= shape.num_layers]
    else:
        found = [{key: size} for size in larger]
    return [changes for changes in found if accepted(apply(config, changes), shape)]
