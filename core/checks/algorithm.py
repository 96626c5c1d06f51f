"""Keys of `algorithm` against the advantage and the loss that are to read them."""

from __future__ import annotations

from collections.abc import Iterator

from common.mistake import Mistake, show
from core.checks.function import definition
from core.checks.signature import Signature
from core.config.schema import AlgorithmConfig, RunConfig
from core.doors import ADVANTAGE, LOSS
from core.plugins import Door


def keys_have_readers(config: RunConfig) -> Iterator[Mistake]:
    """A key that only some built-ins read says nothing beside others: a clip range, say, where nothing is clipped."""
    algorithm = config.algorithm
    chosen = [(LOSS, algorithm.loss), (ADVANTAGE, algorithm.advantage_estimator)]
    if any(name not in door.builtins for door, name in chosen):
        return  # what a user's own code reads is its own affair, and an unknown name is reported by its door
    taken = {key for door, name in chosen for key in _reads(door, name)}
    for door, name in chosen:
        readers = {one: _reads(door, one) for one in door.builtins}
        for key, field in AlgorithmConfig.model_fields.items():
            found, who = getattr(algorithm, key), [one for one, keys in readers.items() if key in keys]
            if who and key not in taken and found != field.default:
                section, _, its = door.key.partition(".")
                said = f"{show(found)}, which {its} {name} does not read"
                wanted = f"a key of {its} {name}; this one is for {', '.join(who)}"
                yield Mistake(f"{section}.{key}", None, said, wanted, f"remove it, or choose another {its}")


def _reads(door: Door, name: str) -> set[str]:
    """The parameters of a built-in."""
    found = definition(door.place(name))
    return set() if found is None else set(Signature.of(found).names)
