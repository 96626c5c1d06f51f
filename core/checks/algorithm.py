"""Keys of `algorithm` against the advantage and the loss that are to read them."""

from __future__ import annotations

from collections.abc import Iterator

from common.mistake import Mistake, show
from core.checks.function import definition, python_function
from core.checks.needs import (
    loss_needs,
    needs_reference,
    reads_advantages,
    takes_importance,
    takes_token_importance,
)
from core.checks.signature import Signature
from core.config.schema import RunConfig
from core.config.sections.algorithm import AlgorithmConfig
from core.doors import ADVANTAGE, KL, LOSS
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


def kl_in_one_place(config: RunConfig) -> Iterator[Mistake]:
    """A KL in the rewards has an advantage that takes it, and is not in the loss as well."""
    algorithm = config.algorithm
    if not algorithm.kl_coef:
        return
    if loss_needs(algorithm).reference:
        own = f"kl_loss_coef {algorithm.kl_loss_coef}" if algorithm.kl_loss_coef else f"loss {algorithm.loss}"
        found = f"{algorithm.kl_coef} with {own}: the reference is in the rewards and in the loss"
        yield Mistake("algorithm.kl_coef", None, found, "the KL in one place", "remove one of the two")
    place = ADVANTAGE.place(algorithm.advantage_estimator)
    if algorithm.advantage_estimator in ADVANTAGE.builtins or any(python_function(ADVANTAGE.key, place)):
        return  # keys_have_readers or its door reports it
    if (text := definition(place)) is None:
        return
    made = Signature.of(text)
    called = made if made.methods is None else made.call
    if called is not None and KL not in called.names and not called.any_name:
        found = f"{algorithm.kl_coef}, and no parameter {KL} of {place}"
        wanted = f"an advantage that takes {KL}"
        yield Mistake("algorithm.kl_coef", None, found, wanted, "add the parameter, or set kl_loss_coef in its place")


def reference_follows(config: RunConfig) -> Iterator[Mistake]:
    """What is updated to the policy is there, and is not a teacher or what adapters are trained beside."""
    algorithm = config.algorithm
    if algorithm.ref_update_interval is None:
        return
    key, found = "algorithm.ref_update_interval", f"{algorithm.ref_update_interval} "
    if not needs_reference(algorithm):
        wanted = "a KL to a reference, in the loss or the rewards"
        yield Mistake(key, None, found + "and no reference", wanted, "set kl_loss_coef or kl_coef, or remove it")
    elif algorithm.loss in LOSS.builtins and loss_needs(algorithm).reference and not algorithm.kl_loss_coef:
        teacher = f"with loss {algorithm.loss}, whose reference is the teacher"
        yield Mistake(key, None, found + teacher, "a teacher that stays", "remove it")
    elif config.train.lora is not None:
        base = "with train.lora, whose reference is the model without adapters"
        yield Mistake(key, None, found + base, "a reference that stays", "remove it, or train.lora")


def reference_is_read(config: RunConfig) -> Iterator[Mistake]:
    """A reference of its own is there for a KL, or for a loss that learns from it."""
    path = config.model.reference_path
    if path is None or needs_reference(config.algorithm) or config.train.lora is not None:
        return  # beside adapters it is refused anyhow
    found = f"{path}, and neither a KL nor a loss that reads it"
    remedy = "remove it, or set algorithm.kl_loss_coef or kl_coef"
    yield Mistake("model.reference_path", None, found, "a model that something is compared with", remedy)


def teacher_is_another(config: RunConfig) -> Iterator[Mistake]:
    """A loss of nothing but a teacher's log-probs has another model for it: of its own the policy learns nothing."""
    algorithm = config.algorithm
    if config.model.reference_path is not None or reads_advantages(algorithm) or not loss_needs(algorithm).reference:
        return
    found = f"{algorithm.loss}, whose teacher is the model itself where model.reference_path is left out"
    remedy = "set model.reference_path, or let rewards count beside it: loss_options: {advantage_weight: 1}"
    yield Mistake(LOSS.key, None, found, "another model to learn from", remedy)


def _reads(door: Door, name: str) -> set[str]:
    """The parameters of a built-in."""
    found = definition(door.place(name))
    return set() if found is None else set(Signature.of(found).names)
