"""Layers of pipeline stages, told by a plain list of layers."""

from __future__ import annotations

import pytest

import modelcfg
from modelcfg.shards import rank_parameters
from modelcfg.stages import Stages, balanced


@pytest.mark.parametrize(
    ("stages", "num_layers", "lengths"),
    [
        (Stages(), 3, [3]),
        (Stages(4), 36, [9, 9, 9, 9]),
        (Stages(4, last=13), 61, [16, 16, 16, 13]),
        (Stages(4, first=10), 61, [10, 17, 17, 17]),
        (Stages(4, first=14, last=16), 78, [14, 24, 24, 16]),
        (Stages(2, first=1, last=2), 3, [1, 2]),
        (Stages(3, first=1, last=1), 3, [1, 1, 1]),
    ],
)
def test_stages_have_layers_that_follow_each_other(stages: Stages, num_layers: int, lengths: list[int]) -> None:
    found = stages.layers(num_layers)
    assert [len(own) for own in found] == lengths
    assert [layer for own in found for layer in own] == list(range(num_layers))
    assert [(stage, layer, layer - found[stage].start) for stage, own in enumerate(found) for layer in own] == list(
        stages.places(num_layers)
    )


@pytest.mark.parametrize(
    ("stages", "num_layers"),
    [
        (Stages(4), 61),
        (Stages(4, last=12), 61),
        (Stages(2, first=3, last=12), 61),
        (Stages(4, first=60, last=12), 61),
        (Stages(3, first=1, last=1), 2),
        (Stages(3, last=3), 3),
        (Stages(8), 4),
        (Stages(1, first=2), 3),
        (Stages(2, last=0), 2),
    ],
)
def test_what_does_not_add_up_has_no_layers(stages: Stages, num_layers: int) -> None:
    assert not stages.add_up(num_layers)
    with pytest.raises(ValueError, match=f"^{num_layers} layers do not go into "):
        stages.layers(num_layers)


@pytest.mark.parametrize(
    ("number", "num_layers", "last"),
    [
        (4, 36, None),
        (4, 94, 22),
        (8, 61, 5),
        (4, 61, 13),
        (2, 47, 23),
        (8, 9, 2),
        (8, 28, 2),
        (8, 8, None),
        (1, 5, None),
    ],
)
def test_a_balanced_pipeline_is_as_even_as_its_last_stage_lets_it(number: int, num_layers: int, last: int) -> None:
    found = balanced(number, num_layers)
    assert found == Stages(number, first=2 if num_layers == 28 else None, last=last)
    assert found.add_up(num_layers)


def test_every_number_of_layers_has_a_balanced_pipeline() -> None:
    for number in range(1, 9):
        for num_layers in range(number, 100):
            lengths = [len(own) for own in balanced(number, num_layers).layers(num_layers)]
            assert sum(lengths) == num_layers
            assert num_layers < 20 or max(lengths) == -(-num_layers // number)
    with pytest.raises(ValueError, match="3 layers for 4 stages"):
        balanced(4, 3)


def test_possible_numbers_of_an_end() -> None:
    assert Stages(4).possible("last", 11) == [2, 5, 8]
    assert Stages(4).possible("first", 11) == [2, 5, 8]
    assert Stages(2, first=3).possible("last", 11) == [8]
    assert Stages(4, first=10).possible("last", 11) == []


def test_stages_of_all_lengths_hold_the_same_model() -> None:
    shape = modelcfg.load("glm4-32b")
    for stages in (Stages(2, first=1), Stages(4, last=13), Stages(3, first=20, last=20)):
        held = [rank_parameters(shape, stages=stages, stage=stage) for stage in range(stages.number)]
        assert sum(sum(one.values()) for one in held) == modelcfg.num_parameters(shape)
