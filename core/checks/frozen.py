"""Which parameters are trained: expressions mean some of them, and what is left can be trained in this layout."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from common.mistake import Mistake
from core.config.layout import pipeline_stages
from core.config.schema import RunConfig
from core.config.sections.train import TrainConfig
from modelcfg import ModelShape
from modelcfg.chosen import Choice, chosen_parameters, tensor_names, torn, without_match
from modelcfg.shards import EXPERTS
from modelcfg.stages import ONE_STAGE, Stages

ONLY, FREEZE = "train.only", "train.freeze"
LAYER = ".layers.0."


def said_once(config: RunConfig) -> Iterator[Mistake]:
    """What is trained is said in one way: by what is, by what is not, or by adapters."""
    train = config.train
    if train.only and train.freeze:
        found, wanted = f"{_count(train.freeze)} beside {ONLY}", "one of the two"
        yield Mistake(FREEZE, None, found, wanted, "remove one of them: what only does not name is frozen")
    if train.lora is not None and not train.choice.everything:
        found = f"{_count(train.only or train.freeze)} with train.lora"
        wanted = "no choice of parameters where adapters alone are trained"
        remedy = "remove it, and name layers in train.lora.targets; or remove train.lora"
        yield Mistake(_key(train), None, found, wanted, remedy)


def names_are_parameters(config: RunConfig, shape: ModelShape | None) -> Iterator[Mistake]:
    """Each expression is found in the name of a parameter of the model, and something is left to train."""
    train = config.train
    if shape is None or train.choice.everything or _said_twice(train):
        return
    unknown = without_match(shape, train.only or train.freeze)
    for expression in unknown:
        found = f"{expression!r}, which no parameter of {shape.name} has in its name"
        yield Mistake(_key(train), None, found, _some_names(shape), _without_a_name(shape, expression))
    if not unknown and _trains(shape, train.choice, ONE_STAGE, stage=0, experts=1) == NOTHING:
        wanted = f"some of {shape.name}'s {len(tensor_names(shape))} tensors to train"
        yield Mistake(_key(train), None, "expressions that freeze everything", wanted, "name fewer of them")


def parameters_are_whole(config: RunConfig, shape: ModelShape | None) -> Iterator[Mistake]:
    """What trainers hold as one parameter is trained as a whole: there is one gradient for it, and one moment."""
    if shape is None or config.train.choice.everything or _said_twice(config.train):
        return
    if (both := torn(shape, config.train.choice)) is not None:
        found = f"{both.trained} trained and {both.frozen} frozen"
        wanted = "both trained or both frozen: query, key and value, gate and up, and the experts of a layer are one"
        remedy = f"let the expressions of {_key(config.train).rpartition('.')[2]} find all of them or none, e.g. "
        yield Mistake(_key(config.train), None, found, wanted, f"{remedy}[qkv]_proj, (gate|up)_proj, experts")


def stages_have_work(config: RunConfig, shape: ModelShape | None) -> Iterator[Mistake]:
    """Every pipeline stage trains something, and of experts on ranks of their own some where another stage does."""
    train, stages = config.train, pipeline_stages(config.placement)
    number = config.placement.pipeline_parallel
    if shape is None or train.choice.everything or _said_twice(train) or number == 1:
        return
    if not stages.add_up(shape.num_layers) or torn(shape, train.choice) is not None:
        return
    kinds = [_trains(shape, train.choice, stages, n, config.placement.expert_parallel) for n in range(number)]
    if kinds[0] == NOTHING and len(set(kinds)) == 1:
        return  # said of the whole model
    differing = next((n for n, kind in enumerate(kinds) if kind != max(kinds)), None)
    if differing is not None:
        layers = stages.layers(shape.num_layers)[differing]
        what = "nothing is" if kinds[differing] == NOTHING else "experts or the rest are not"
        found = f"pipeline stage {differing} (layers {layers.start} to {layers.stop - 1}), of which {what} trained"
        remedy = "train a parameter of each, e.g. its norms, or set placement.pipeline_parallel to 1"
        yield Mistake(_key(train), None, found, "something to train in every stage", remedy)


Kinds = tuple[bool, bool]  # whether something is trained that all ranks hold, and something of experts of a rank's own
NOTHING: Kinds = (False, False)


@lru_cache(maxsize=4096)  # a search for a layout asks thousands of times
def _trains(shape: ModelShape, choice: Choice, stages: Stages, stage: int, experts: int) -> Kinds:
    trained = chosen_parameters(shape, choice, 1, stages, stage, experts).trained
    own = any(EXPERTS in name for name in trained) and experts > 1
    return any(experts == 1 or EXPERTS not in name for name in trained), own


def _said_twice(train: TrainConfig) -> bool:
    return bool((train.only and train.freeze) or train.lora)


def _key(train: TrainConfig) -> str:
    return ONLY if train.only else FREEZE


def _count(expressions: tuple[str, ...]) -> str:
    return f"{len(expressions)} expression{'s' if len(expressions) > 1 else ''}"


def _some_names(shape: ModelShape) -> str:
    names = [name for name in tensor_names(shape) if LAYER in name and "norm" not in name]
    return f"an expression found in HuggingFace's names, such as {names[0]} or {names[-1]}"


def _without_a_name(shape: ModelShape, expression: str) -> str:
    if shape.tied_embeddings and "lm_head" in expression:
        return f"name {tensor_names(shape)[0]}, which is the output layer, too: they are tied"
    return "correct it, or remove it"
