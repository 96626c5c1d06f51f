"""What the loss and the advantage of a run file need, by what their text says (`core.checks.said`).

Planner and trainer ask here, so that both count with the same.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from common.mistake import Wrong
from core.checks.said import said
from core.config.sections.algorithm import AlgorithmConfig
from core.doors import ADVANTAGE, LOSS
from core.plugins import where

PLAIN = (bool, int, float, str, type(None))


class LossNeeds(NamedTuple):
    """What a loss has to be given."""

    reference: bool
    entropy_gradient: bool


def loss_needs(algorithm: AlgorithmConfig) -> LossNeeds:
    """What the run's loss asks for."""
    text = said(LOSS.place(algorithm.loss))
    values = {**text.defaults, **algorithm.model_dump(), **algorithm.loss_options}

    def asks(name: str) -> bool:
        found = _plain(text.own.get(name, False))
        return bool(values.get(found)) if isinstance(found, str) else bool(found)

    return LossNeeds(asks("needs_reference"), asks("needs_entropy_gradient"))


def needs_reference(algorithm: AlgorithmConfig) -> bool:
    """Whether a run has a reference model: for its loss, or for the KL in the rewards."""
    return algorithm.kl_coef > 0 or loss_needs(algorithm).reference


def takes_token_importance(algorithm: AlgorithmConfig) -> bool:
    """Whether `algorithm.importance` may weigh single tokens; a loss whose ratio is that of a response says no."""
    return said(LOSS.place(algorithm.loss)).own.get("token_importance", True) is not False


def takes_importance(algorithm: AlgorithmConfig) -> bool:
    """Whether `importance` and `opsm_delta` may weigh advantages; a loss that learns from more than these says no."""
    return said(LOSS.place(algorithm.loss)).own.get("takes_importance", True) is not False


def min_group_size(algorithm: AlgorithmConfig) -> int:
    """Samples of a prompt that the run's estimator needs; where an option says their number, two at least."""
    text = said(ADVANTAGE.place(algorithm.advantage_estimator))
    found = text.own.get("min_group_size", 1)
    if isinstance(found, str):
        value = {**text.defaults, **algorithm.advantage_options}.get(found)
        return max(2, value) if isinstance(value, int) else 2
    return found if isinstance(found, int) else 1


def needs_values(algorithm: AlgorithmConfig) -> bool:
    """Whether the run's estimator asks for a critic."""
    return said(ADVANTAGE.place(algorithm.advantage_estimator)).own.get("needs_values", False) is True


def reads_advantages(algorithm: AlgorithmConfig) -> bool:
    """Whether the run's loss learns from advantages: True where it says nothing, else by its option of this name."""
    text = said(LOSS.place(algorithm.loss))
    named = _plain(text.own.get("reads_advantages", True))
    values = {**text.defaults, **algorithm.model_dump(), **algorithm.loss_options}
    return bool(values.get(named)) if isinstance(named, str) else bool(named)


def may_differ_by_token(algorithm: AlgorithmConfig) -> bool:
    """Whether advantages may be stored per token; where the text says nothing, that is seen only when it is called."""
    return said(ADVANTAGE.place(algorithm.advantage_estimator)).own.get("per_token", True) is not False


def refuse_other_needs(algorithm: AlgorithmConfig, loss: Any) -> None:
    """Hold the loss that was made to what its text says: by that the memory was planned.

    Raises:
        Wrong: it says something else, as a property or a value set in `__init__` does.
    """
    own = said(LOSS.place(algorithm.loss)).own
    for name in ("needs_reference", "needs_entropy_gradient"):
        found = getattr(loss, name, False)
        if found != _plain(own.get(name, False)):
            remedy = f"write `{name} = {found!r}` in its class, or the name of the option that asks for it"
            raise Wrong(f"{name} = {found!r} of {where(loss)}, which its text does not say", "a plain constant", remedy)


def refuse_other_values(algorithm: AlgorithmConfig, advantages: Any) -> None:
    """Hold the estimator that was made to what its text says: by that there is a critic, or none.

    Raises:
        Wrong: it says something else.
    """
    found = getattr(advantages, "needs_values", False) is True
    if found != needs_values(algorithm):
        said_so = f"needs_values {found} of {where(advantages)}, which its text does not say"
        raise Wrong(said_so, "a plain constant", f"write `needs_values = {found}` in its class, or below the function")


def _plain(value: Any) -> Any:
    """The value if it is no container; else False, as if nothing was said."""
    return value if isinstance(value, PLAIN) else False
