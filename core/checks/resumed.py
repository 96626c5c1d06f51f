"""What may change when a run goes on, and why the rest may not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from common.mistake import Mistake, show
from core.checks.needs import needs_reference, needs_values
from core.config.schema import RunConfig
from core.doors import ADVANTAGE

# a section, or one key of it -> why it stays
FIXED = {
    "name": "the run's records bear it",
    "runs_dir": "the run stays where it is",
    "model": "the checkpoint holds the state of this model",
    "data": "the checkpoint counts these rows, in this order",
    "algorithm.ref_update_interval": "the checkpoint holds the reference if it moves, and only then",
    "train.only": "the checkpoint holds the state of what is trained",
    "train.freeze": "the checkpoint holds the state of what is trained",
    "train.lora": "the checkpoint holds these adapters",
    "train.seed": "it acts at the start only: the checkpoint holds the random states",
    "train.dither_masters": "it acts at the start only: the checkpoint holds the masters",
}

UNREAD = "model.reference_path"
"""A run that began before it was refused may have it though nothing reads it, and goes on without it."""


def fixed_keys_changed(before: RunConfig, after: RunConfig, overrides: Sequence[str]) -> Iterator[Mistake]:
    """A mistake for each override that would change what a run keeps from its first attempt to its last.

    Args:
        before, after: the run file as the run has it, and with the overrides.
    """
    for override in overrides:
        key = override.partition("=")[0].strip()
        if key == UNREAD and not needs_reference(before.algorithm) and after.model.reference_path is None:
            continue
        name = next((name for name in FIXED if f"{key}.".startswith(f"{name}.")), None)
        if name is not None and _value(before, name) != _value(after, name):
            wanted = f"the run's own {show(_value(before, key))}, for {FIXED[name]}"
            yield Mistake(key, None, show(_value(after, key)), wanted, "begin a new run with it", override)
        elif ADVANTAGE.key == key and needs_values(before.algorithm) != needs_values(after.algorithm):
            has = "a critic" if needs_values(before.algorithm) else "no critic"
            wanted = f"one like the run's own {show(_value(before, key))}: its checkpoint holds {has}"
            yield Mistake(key, None, show(_value(after, key)), wanted, "begin a new run with it", override)


def _value(config: RunConfig, key: str) -> object:
    value: object = config.model_dump(mode="json")
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value
