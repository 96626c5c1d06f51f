"""Which layers each pipeline stage has: the one place where planner, checks, names and model ask for that."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple


class Stages(NamedTuple):
    """A pipeline's stages, each with layers that follow each other.

    `first` and `last` are the numbers of layers of these stages; the other stages share the rest evenly, and a stage
    whose number is None is one of these others.
    """

    number: int = 1
    first: int | None = None
    last: int | None = None

    def layers(self, num_layers: int) -> list[range]:
        """The layers of every stage.

        Raises:
            ValueError: they do not add up (`add_up`).
        """
        counts = self._counts(num_layers)
        if sum(counts) != num_layers or min(counts) < 1:
            raise ValueError(f"{num_layers} layers do not go into {self}: wanted stages that `add_up`")
        begins = [sum(counts[:stage]) for stage in range(self.number)]
        return [range(begin, begin + count) for begin, count in zip(begins, counts, strict=True)]

    def places(self, num_layers: int) -> Iterator[tuple[int, int, int]]:
        """The stage of every layer, the layer's number, and its number on the stage."""
        for stage, own in enumerate(self.layers(num_layers)):
            yield from ((stage, layer, index) for index, layer in enumerate(own))

    def add_up(self, num_layers: int) -> bool:
        """Whether every stage has a layer, and every layer a stage."""
        counts = self._counts(num_layers)
        return sum(counts) == num_layers and min(counts) >= 1

    def possible(self, end: Literal["first", "last"], num_layers: int) -> list[int]:
        """Numbers of layers of an end with which the stages add up, smallest first."""
        counts = range(1, num_layers + 1)
        return [count for count in counts if self._replace(**{end: count}).add_up(num_layers)]

    def _counts(self, num_layers: int) -> list[int]:
        """What is said, and in the places of the others the rest by their number, rounded down."""
        ends = ((0, self.first), (self.number - 1, self.last))
        said = {stage: count for stage, count in ends if count is not None}
        others = self.number - len(said)
        share = (num_layers - sum(said.values())) // others if others else 0
        return [said.get(stage, share) for stage in range(self.number)]


ONE_STAGE = Stages()


def balanced(number: int, num_layers: int) -> Stages:
    """Stages of equal length; where layers do not divide, with ends of their own, shorter ones if that can be.

    The last one comes first, for it has the logits beside its layers.

    Raises:
        ValueError: there are fewer layers than stages.
    """
    if num_layers < number:
        raise ValueError(f"{num_layers} layers for {number} stages: wanted a layer for each")
    if num_layers % number == 0:
        return Stages(number)
    longest = -(-num_layers // number)
    missing = number * longest - num_layers
    at_first = missing // 2
    ways = (
        Stages(number, last=longest - missing),
        Stages(number, longest - at_first, longest - (missing - at_first)),
        Stages(number, last=num_layers - (number - 1) * (longest - 1)),
    )
    possible = (one for one in ways if one.add_up(num_layers))
    return min(possible, key=lambda one: max(map(len, one.layers(num_layers))))
