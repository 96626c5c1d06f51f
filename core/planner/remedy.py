"""Settings under which a plan fits, found by planning again with them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from common.mistake import Mistake
from core.checks import batch, model, parallel
from core.config.schema import RunConfig
from core.planner.decisions import plan_memory
from core.planner.engine import sample_tokens
from core.planner.memory import GENERATING, TIGHT, TRAINING, Device
from modelcfg import ModelShape

STEP_TOKENS = 256
MOST_SHOWN = 4
SIZES = (2, 4, 8)
RULES = (
    batch.a_sample_fits_a_micro_batch,
    parallel.ranks_divide,
    parallel.experts_divide,
    parallel.batch_divides_over_replicas,
)

Changes = Mapping[str, Any]
ALL_LAYERS: Changes = {"train.recompute": "full", "train.recompute_layers": None}


def update_remedy(config: RunConfig, shape: ModelShape, device: Device) -> str:
    """What to set so that training fits, and if possible not tightly: single changes, else several at once."""
    found = _changes(config, shape, device, TIGHT) or _changes(config, shape, device, 1.0)
    if not found:
        return "use GPUs with more memory, or more of them: no setting of these keys makes it fit on 8 per node"
    return "set " + ", or ".join(_text(changes) for changes in found[:MOST_SHOWN])


def _changes(config: RunConfig, shape: ModelShape, device: Device, share: float) -> list[Changes]:
    def fits(changes: Changes) -> bool:
        changed = apply(config, changes)
        return not size_problems(changed, shape) and plan_memory(changed, shape, device).fits(TRAINING, share)

    alone = (
        _offload(config),
        _tokens(config),
        _recompute(config, shape),
        _distributed(config),
        _streamed(config),
        _split(config, shape),
    )
    found = [first for ladder in alone if (first := _first(ladder, fits)) is not None]
    if all(_split_key(shape) in changes for changes in found):  # which costs more time than the others
        together = (_first(ladder, fits) for ladder in _together(config, shape))
        found = [*([first] if (first := next(filter(None, together), None)) else []), *found]
    return found


def _first(ladder: Sequence[Changes], fits: Callable[[Changes], bool]) -> Changes | None:
    """The first that fits of changes of which each needs less memory than the one before."""
    place = bisect_left(ladder, True, key=fits)
    return ladder[place] if place < len(ladder) else None


def engine_remedy(config: RunConfig, shape: ModelShape, device: Device, samples: int) -> str:
    """A share of the GPU with which the KV cache has room for these samples; empty if there is none."""
    for changes in _shares(config):
        changed = apply(config, changes)
        plan = plan_memory(changed, shape, device)
        room = 0 if plan.cache is None else plan.cache.samples(sample_tokens(config))
        if plan.fits(GENERATING) and room >= samples:
            return "set " + _text(changes)
    if samples > 1:
        return ""
    return "use GPUs with more memory, or a smaller model: no share of a GPU has room for 1"


def size_problems(config: RunConfig, shape: ModelShape | None) -> list[Mistake]:
    """What a plan cannot be made of: sizes that do not divide, samples that fit no row."""
    return [*(problem for rule in RULES for problem in rule(config)), *model.shape_divides(config, shape)]


def apply(config: RunConfig, changes: Changes) -> RunConfig:
    """The run file with other values, as `--set` would change it."""
    for key, value in changes.items():
        section, _, name = key.partition(".")
        changed = getattr(config, section).model_copy(update={name: value})
        config = config.model_copy(update={section: changed})
    return config


def _offload(config: RunConfig) -> list[Changes]:
    return [{"placement.offload": "auto"}] if config.placement.offload == "off" else []


def _streamed(config: RunConfig) -> list[Changes]:
    return [{"train.optimizer_state": "auto"}] if config.train.optimizer_state == "resident" else []


def _tokens(config: RunConfig) -> list[Changes]:
    """The least is a budget that holds the longest sample."""
    least, present = sample_tokens(config), config.train.max_tokens_per_micro_batch
    largest = (present - 1) // STEP_TOKENS * STEP_TOKENS
    budgets = [*range(largest, least, -STEP_TOKENS), *([least] if least < present else [])]
    return [{"train.max_tokens_per_micro_batch": tokens} for tokens in budgets]


def _recompute(config: RunConfig, shape: ModelShape) -> list[Changes]:
    """Settings that recompute layers, the smallest number of layers first."""
    layers = shape.num_layers // config.placement.pipeline_parallel
    before = (config.train.recompute_layers or layers) if config.train.recompute == "full" else 0
    some = [{"train.recompute": "full", "train.recompute_layers": count} for count in range(before + 1, layers)]
    return [*some, *([ALL_LAYERS] if before < layers else [])]


def _distributed(config: RunConfig) -> list[Changes]:
    replicas = parallel.num_trainers(config.placement) // parallel.replica_size(config.placement)
    fresh = replicas > 1 and not config.train.use_distributed_optimizer
    return [{"train.use_distributed_optimizer": True}] if fresh else []


def _split_key(shape: ModelShape) -> str:
    """What splits the layers of a model."""
    return "placement.expert_parallel" if shape.num_experts else "placement.tensor_parallel"


def _split(config: RunConfig, shape: ModelShape) -> list[Changes]:
    placement, key = config.placement, _split_key(shape)
    present, most = getattr(placement, key.partition(".")[2]), placement.trainers_per_node
    found = [{key: size} for size in SIZES if present < size <= most]
    return [changes for changes in found if not size_problems(apply(config, changes), shape)]


def _together(config: RunConfig, shape: ModelShape) -> Iterator[list[Changes]]:
    """Ever more at once: what costs least time first; at last with more GPUs per node."""
    changes: dict[str, Any] = {}
    for kind in (_offload, _distributed, _streamed):
        changes |= next(iter(kind(config)), {})
    changes |= ALL_LAYERS
    yield [changes, *({**changes, **tokens} for tokens in _tokens(config))]
    key = _split_key(shape)
    for size in SIZES:
        if size > getattr(config.placement, key.partition(".")[2]):
            more = {**changes, key: size, **({} if shape.num_experts else {"placement.sequence_parallel": True})}
            if size > config.placement.trainers_per_node:
                more["placement.trainers_per_node"] = size
            yield [more, *({**more, **tokens} for tokens in _tokens(config))]


def _shares(config: RunConfig) -> Iterator[Changes]:
    placement = config.placement
    present = round(placement.engine_memory_fraction * 100)
    nearest = sorted(range(5, 96), key=lambda percent: abs(percent - present))
    yield from ({"placement.engine_memory_fraction": percent / 100} for percent in nearest)
    most = placement.trainers_per_node // placement.engines_per_node
    yield from ({"placement.engine_tensor_parallel": n} for n in SIZES if placement.engine_tensor_parallel < n <= most)


def _text(changes: Changes) -> str:
    shown = {key: value for key, value in changes.items() if value is not None}
    return " and ".join(f"{key}: {str(value).lower()}" for key, value in shown.items())
