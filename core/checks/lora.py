"""Adapters: which layers can have one, and what they cannot be combined with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from common.mistake import Mistake, show
from common.nearest import nearest
from core.config.layout import pipeline_stages
from core.config.schema import RunConfig
from modelcfg import ModelShape
from modelcfg.adapters import ALL_LINEAR, expert_targets, largest_ranks, possible_targets

KEY = "train.lora"


def the_base_is_the_reference(config: RunConfig) -> Iterator[Mistake]:
    """The KL is to the model without its adapters, of which there is one copy."""
    path = config.model.reference_path
    if config.train.lora is not None and path is not None:
        found = f"{path} with {KEY}"
        wanted = "nothing: the reference is the model without its adapters, which takes no memory"
        yield Mistake("model.reference_path", None, found, wanted, f"remove it, or remove {KEY}")


def targets_are_layers(config: RunConfig, shape: ModelShape | None) -> Iterator[Mistake]:
    """Each target is a linear layer of the model, and none that experts have."""
    if config.train.lora is None or shape is None:
        return
    possible, of_experts = possible_targets(shape), expert_targets(shape)
    given = config.train.lora.targets
    refused = [name for name in given if name in of_experts or (name == ALL_LINEAR and of_experts)]
    unknown = [name for name in given if name not in possible and name != ALL_LINEAR and name not in of_experts]
    listed = ", ".join(possible)
    if refused:
        wanted = f"some of {listed}: experts ({', '.join(sorted(of_experts))}) have no adapters"
        yield Mistake(f"{KEY}.targets", None, _listed(refused), wanted, f"set it to [{listed}]")
    if unknown:
        wanted = f"some of {listed}, the linear layers of {shape.name}" + ("" if of_experts else f"; or {ALL_LINEAR}")
        close = next(filter(None, (nearest(name, possible) for name in unknown)), None)
        yield Mistake(
            f"{KEY}.targets", None, _listed(unknown), wanted, f"did you mean {close}?" if close else "choose among them"
        )
    if len(set(given)) < len(given):
        yield Mistake(f"{KEY}.targets", None, show(list(given)), "each once", "remove what is there twice")
    elif ALL_LINEAR in given and len(given) > 1:
        wanted = f"{ALL_LINEAR} alone, or names of layers"
        yield Mistake(f"{KEY}.targets", None, _listed(given), wanted, f"remove {ALL_LINEAR}, or all others")


def rank_is_of_a_layer(config: RunConfig, shape: ModelShape | None) -> Iterator[Mistake]:
    """A rank that what is added to one layer's weight can have."""
    lora = config.train.lora
    if lora is None or shape is None:
        return
    largest = max(largest_ranks(shape, lora.targets))
    if 0 < largest < lora.rank:
        wanted = f"{largest} at most, the smaller of inputs and outputs where an adapter's layer is largest"
        yield Mistake(f"{KEY}.rank", None, str(lora.rank), wanted, "lower it")


def stages_have_adapters(config: RunConfig, shape: ModelShape | None) -> Iterator[Mistake]:
    """Every pipeline stage trains something."""
    lora, stages = config.train.lora, pipeline_stages(config.placement)
    if lora is None or shape is None or not stages.add_up(shape.num_layers):
        return
    ranks = largest_ranks(shape, lora.targets)
    without = next((layers for layers in stages.layers(shape.num_layers) if not any(ranks[n] for n in layers)), None)
    if without is not None and any(ranks):
        found = f"{_listed(lora.targets)}, none of which is in the pipeline stage of layers {_span(without)}"
        remedy = "name a layer of each, or lower placement.pipeline_parallel"
        yield Mistake(f"{KEY}.targets", None, found, "something to train in every stage", remedy)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(name or "''" for name in names)


def _span(layers: range) -> str:
    return f"{layers.start} to {layers.stop - 1}"
