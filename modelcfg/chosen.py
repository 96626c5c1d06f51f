"""Which of a model's parameters are trained: expressions over HuggingFace's names, looked up in the family's table.

A parameter of Megatron's may hold several tensors of the files (query, key and value; gate and up; a projection of all
experts of a layer): it is trained as a whole, or not at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from modelcfg.shape import ModelShape
from modelcfg.shards import rank_parameters
from modelcfg.size import num_parameters
from modelcfg.stages import ONE_STAGE, Stages
from modelcfg.table import after_layers, before_layers, layer_prefix, layer_weights
from modelcfg.weights import EMBEDDING, OUTPUT, Weight, part_of

Names = tuple[str, ...]  # of a tensor, as files may spell it: by itself, or stacked with those of other experts
Place = tuple[int | None, str]  # layer, or None, and Megatron's name within it, `{place}` in it for experts


class Choice(NamedTuple):
    """Regular expressions, found anywhere in a name: trained is what one of `only` finds, or else none of `freeze`."""

    only: tuple[str, ...] = ()
    freeze: tuple[str, ...] = ()

    @property
    def everything(self) -> bool:
        """Whether all parameters are trained, as nothing is said."""
        return not self.only and not self.freeze

    def trains(self, names: Names) -> bool:
        """Whether the tensor with these names is trained."""
        if self.only:
            return _finds(self.only, names)
        return not _finds(self.freeze, names)


ALL = Choice()


class Torn(NamedTuple):
    """Two tensors of one parameter, of which one is trained and one is not."""

    trained: str
    frozen: str


def tensor_names(shape: ModelShape) -> list[str]:
    """Names of the tensors that a gradient can train, as a checkpoint has them one by one, in its order."""
    return [names[0] for _, tensors in _lines(shape) for names in tensors]


def without_match(shape: ModelShape, expressions: Sequence[str]) -> list[str]:
    """Expressions among these that no name has in it."""
    tensors = [names for _, parts in _lines(shape) for names in parts]
    return [one for one in expressions if not any(_finds((one,), names) for names in tensors)]


@lru_cache(maxsize=256)  # a search for a layout asks thousands of times
def torn(shape: ModelShape, choice: Choice) -> Torn | None:
    """The first parameter of which a part would be trained; None: there is none."""
    for _, tensors in _lines(shape):
        trained = [choice.trains(names) for names in tensors]
        if any(trained) and not all(trained):
            return Torn(tensors[trained.index(True)][0], tensors[trained.index(False)][0])
    return None


class Chosen(NamedTuple):
    """Elements of every parameter of one trainer rank, by Megatron's name: those that are trained, and the others."""

    trained: dict[str, int]
    frozen: dict[str, int]


def chosen_parameters(
    shape: ModelShape,
    choice: Choice,
    tensor_parallel: int = 1,
    stages: Stages = ONE_STAGE,
    stage: int = 0,
    expert_parallel: int = 1,
    expert_tensor_parallel: int = 1,
) -> Chosen:
    """The parameters of `rank_parameters`, in their order, in two parts."""
    every = rank_parameters(shape, tensor_parallel, stages, stage, expert_parallel, expert_tensor_parallel)
    if choice.everything:
        return Chosen(every, {})
    names = frozen_names(shape, choice, stages, stage, expert_parallel)
    trained = {name: count for name, count in every.items() if name not in names}
    return Chosen(trained, {name: count for name, count in every.items() if name in names})


@lru_cache(maxsize=256)
def num_trained(shape: ModelShape, choice: Choice) -> int:
    """All parameters that are trained; a tied embedding counts once."""
    if choice.everything:
        return num_parameters(shape)
    return sum(chosen_parameters(shape, choice).trained.values())


def frozen_names(
    shape: ModelShape, choice: Choice, stages: Stages = ONE_STAGE, stage: int = 0, expert_parallel: int = 1
) -> frozenset[str]:
    """Megatron's names of what is not trained on a stage; some of embedding and output may be of another one.

    A tied output layer is the embedding, where the last of several stages holds a second copy of it, too.
    """
    if choice.everything:
        return frozenset()
    held, own = _frozen(shape, choice), stages.layers(shape.num_layers)[stage]
    found = {local for layer, local in held if layer is None}
    if shape.tied_embeddings and EMBEDDING in found:
        found.add(OUTPUT)
    for layer, local in held:
        if layer is not None and layer in own:
            places = range(shape.num_experts // expert_parallel if "{place}" in local else 1)
            begin = f"decoder.layers.{layer - own.start}."
            found.update(begin + local.format(place=place) for place in places)
    return frozenset(found)


@lru_cache(maxsize=256)
def _frozen(shape: ModelShape, choice: Choice) -> frozenset[Place]:
    """Parameters of which nothing is trained, those of a layer's experts as one."""
    return frozenset(place for place, tensors in _lines(shape) if not any(choice.trains(names) for names in tensors))


def _lines(shape: ModelShape) -> Iterator[tuple[Place, list[Names]]]:
    """Each line of the table with its tensors, of all experts where it is theirs."""
    yield _line(shape, None, before_layers(shape))
    for layer in range(shape.num_layers):
        yield from (_line(shape, layer, weight) for weight in layer_weights(shape, layer) if not weight.fixed)
    yield from (_line(shape, None, weight) for weight in after_layers(shape))


def _line(shape: ModelShape, layer: int | None, weight: Weight) -> tuple[Place, list[Names]]:
    begin = "" if layer is None else layer_prefix(shape, layer)
    stacked = (begin + weight.stacked,) if weight.stacked else ()
    experts = range(shape.num_experts if weight.of_expert and not weight.is_part else 1)
    tensors = [(begin + part_of(name.format(expert=expert))[0], *stacked) for expert in experts for name in weight.hf]
    return (layer, weight.local), tensors


def _finds(expressions: Sequence[str], names: Names) -> bool:
    return any(re.search(one, name) for one in expressions for name in names)
