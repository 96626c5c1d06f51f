"""Keys of `algorithm` against the advantage and the loss that are to read them."""

from __future__ import annotations

from collections.abc import Iterator

from common.mistake import Mistake, show
from core.checks.function import definition
from core.checks.needs import takes_importance, takes_token_importance
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


def importance(config: RunConfig) -> Iterator[Mistake]:
    """The bounds of `importance` are read and have 1 between them; its ratio is of a response where the loss's is."""
    algorithm = config.algorithm
    kind, low, high = algorithm.importance, algorithm.importance_low, algorithm.importance_high
    if not takes_importance(algorithm):
        for name in ("importance", "opsm_delta"):
            if (value := getattr(algorithm, name)) != AlgorithmConfig.model_fields[name].default:
                wanted = "no weight of advantages, which are not all that this loss learns from"
                yield Mistake(f"algorithm.{name}", None, f"{value} with loss {algorithm.loss}", wanted, "remove it")
    if kind == "none":
        for name, value in (("importance_low", low), ("importance_high", high)):
            if value != AlgorithmConfig.model_fields[name].default:
                said, wanted = f"{value} with importance none", "a correction that the bound is for"
                yield Mistake(f"algorithm.{name}", None, said, wanted, "set importance, e.g. tis, or remove the bound")
        return
    if algorithm.old_logprobs == "engine":
        wanted = "old log-probs of the trainer, for the ratio of the two is the weight"
        yield Mistake("algorithm.importance", None, f"{kind} with old_logprobs engine", wanted, "remove one of the two")
    for name, value, fits in (("importance_low", low, low <= 1), ("importance_high", high, high >= 1)):
        if not fits:
            wanted = "bounds around 1, the weight of a token on which engine and trainer agree"
            yield Mistake(f"algorithm.{name}", None, str(value), wanted, "correct it")
    if kind in ("tis", "icepop") and not takes_token_importance(algorithm):
        said = f"{kind}, a weight for each token, with loss {algorithm.loss}"
        wanted = f"a weight for each response, as {algorithm.loss}'s ratio is"
        yield Mistake("algorithm.importance", None, said, wanted, "use sequence or mis, or another loss")


def _reads(door: Door, name: str) -> set[str]:
    """The parameters of a built-in."""
    found = definition(door.place(name))
    return set() if found is None else set(Signature.of(found).names)
