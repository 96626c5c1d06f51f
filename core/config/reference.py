"""The tables of docs/run-file.md, made from the schema: `python -m core.config.reference`."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

from common.reference_table import section, table
from core.config.keys import RUN_KEYS
from core.config.sections.data import DataConfig
from core.config.sections.eval import EvalSet, SetReward
from core.config.sections.lora import LoraConfig
from core.config.sections.slurm import SlurmComponent


def reference() -> str:
    """All sections and keys with type, default and meaning, as markdown."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield from ("### Top level", "")
    yield from table(RUN_KEYS, (), [key for key in RUN_KEYS.keys_of(()) if key not in RUN_KEYS.sections()])
    for name in RUN_KEYS.sections():
        yield from section(RUN_KEYS, name)
    yield from ("", "### train.lora", "", inspect.getdoc(LoraConfig) or "", "")
    yield from table(RUN_KEYS, ("train", "lora"))
    yield from ("", "### slurm.components", "")
    yield from (f"A list; each entry is {_lower(inspect.getdoc(SlurmComponent))}", "")
    yield from table(RUN_KEYS, ("slurm", "components", "0"))
    yield from ("", "### eval.sets.NAME", "")
    yield f"{inspect.getdoc(EvalSet)} The keys are those of `data`, with these other defaults, and some more:"
    yield ""
    yield from table(RUN_KEYS, ("eval", "sets", "NAME"), list(_other_defaults()))
    yield from ("", "### eval.sets.NAME.reward", "", inspect.getdoc(SetReward) or "", "")
    yield from table(RUN_KEYS, ("eval", "sets", "NAME", "reward"))


def _lower(sentence: str | None) -> str:
    return (sentence or "")[:1].lower() + (sentence or "")[1:]


def _other_defaults() -> Iterator[str]:
    for key, field in EvalSet.model_fields.items():
        base = DataConfig.model_fields.get(key)
        if base is None or field.default != base.default:
            yield key


if __name__ == "__main__":
    print(reference(), end="")
