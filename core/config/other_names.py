"""Names of settings in slime, verl and TRL, and where their meaning lives in a run file.

One table per library, `core/config/names/*.yaml`, serves hints about unknown keys and the importer of launch scripts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from common.schema_words import KeyPath

FOLDER = Path(__file__).parent / "names"
LIBRARIES = {"slime": "slime", "verl": "verl", "trl": "TRL"}
"""Name of the table, and of the library."""
EVAL_SETS = ("eval", "sets")
ENGINE_PREFIX, ENGINE_OPTIONS = "sglang_", "placement.engine_options"
VALUES: Mapping[str, Mapping[str, str]] = {
    "algorithm.advantage_estimator": {
        "gspo": "set algorithm.loss to gspo, and leave advantage_estimator out",
        "cispo": "set algorithm.loss to cispo, and leave advantage_estimator out",
        "ppo": "set it to gae, beside the loss clipped (docs/algorithms.md)",
        "remax": "there is no greedy baseline: use rloo",
    },
    "algorithm.loss": {
        "policy_loss": "use clipped",
        "vanilla": "use clipped",
        "sft_loss": "set rollout.generate to rows, and leave loss out",
    },
    "reward.type": {
        "gpqa": "use choice",
        "ifbench": "write a function of your own: my.py:score",
        "remote_rm": "write http, with the url in reward.options",
    },
}
"""Values of other libraries that look like ours and are not, by key, and what to do."""


@dataclass(frozen=True)
class OtherName:
    """A name of another library.

    Attributes:
        library: "slime", "verl" or "trl".
        name: in full, dots between its levels.
        key: of the run file; empty: there is none.
        how: what to write there, where the values are not the same.
        gives: the value that the bare flag stands for; None: `how` or the value itself.
        shape: what config.json says in its place; empty: not of the model's shape.
        always: why nothing has to be set.
        why, do: the reason that nothing corresponds, and what to do.
        loses: task, code, result, memory, speed or view; empty: nothing.
        unless: values with which nothing is lost.
        within: the only section of ours where the name is taken for the library's; empty: any.
    """

    library: str
    name: str
    key: str = ""
    how: str = ""
    gives: Any = None
    shape: str = ""
    always: str = ""
    why: str = ""
    do: str = ""
    loses: str = ""
    unless: tuple[str, ...] = ()
    within: str = ""

    @property
    def plain(self) -> bool:
        """Whether the key takes the same values."""
        return bool(self.key) and not self.how and self.gives is None

    @property
    def hint(self) -> str:
        """What to do about the name in a run file."""
        whose = f"{LIBRARIES[self.library]}'s {self.name}"
        if self.key:
            return f"set {self.key}, {whose}{_said(self)}"
        if self.shape:
            return f"remove {whose}: config.json of the model says it"
        if self.always:
            return f"remove {whose}: {self.always}"
        return f"{whose} has no counterpart, as {self.why}: {self.do}"


def _said(name: OtherName) -> str:
    if name.how:
        return f" ({name.how})"
    return "" if name.gives is None else f" ({str(name.gives).lower()})"


@cache
def names_of(library: str) -> Mapping[str, OtherName]:
    """The table of a library, by name."""
    rows = yaml.safe_load((FOLDER / f"{library}.yaml").read_text(encoding="utf-8"))
    return {name: _read(library, name, row) for name, row in rows.items()}


def _read(library: str, name: str, row: Any) -> OtherName:
    if isinstance(row, str):
        return OtherName(library, name, key=row)
    return OtherName(library, name, **row | {"unless": tuple(row.get("unless", ()))})


def find(library: str, name: str) -> OtherName | None:
    """What a name of a library is here; an engine option without a row of its own goes to SGLang as it is."""
    found = names_of(library).get(name)
    if found is None and library == "slime" and name.startswith(ENGINE_PREFIX) and name != ENGINE_PREFIX:
        return OtherName(library, name, key=f"{ENGINE_OPTIONS}.{name.removeprefix(ENGINE_PREFIX)}")
    return found


def hint(path: KeyPath, own: bool) -> str | None:
    """What to do about a key of a run file that another library has; None: none of them has it.

    The library whose name is longer counts, else slime, verl, TRL in this order; a last part that several of verl's
    names share, and that they mean differently, says nothing.

    Args:
        own: a section of ours has the key; then that is what is meant.
    """
    if own:
        return None
    found = _found(tuple(part.replace("-", "_").lower() for part in path))
    if found is None or (found.within and len(path) > 1 and path[0] != found.within):
        return None
    if path[:2] == EVAL_SETS and len(path) == 4:  # an evaluation set has the keys of data, and a reward
        place = ".".join(path[:3])
        found = replace(found, key=re.sub(r"^(data\.|(?=reward\.type$))", f"{place}.", found.key))
    return found.hint


def _found(path: KeyPath) -> OtherName | None:
    for library in LIBRARIES:
        if len(path) > 1 and (found := names_of(library).get(".".join(path))) is not None:
            return found
    for library in LIBRARIES:
        found = find(library, path[-1]) or _by_last_part(library).get(path[-1])
        found = found or names_of(library).get(f"{path[-1]}_size")  # Megatron's own names end so
        if found is not None and (library != "verl" or "." in found.name or len(path) == 1):
            return found
    return None


@cache
def _by_last_part(library: str) -> Mapping[str, OtherName]:
    """Dotted names by their last part, where that has one meaning."""
    parts: dict[str, list[OtherName]] = {}
    for name, found in names_of(library).items():
        if "." in name:
            parts.setdefault(name.rpartition(".")[2], []).append(found)
    return {part: found[0] for part, found in parts.items() if len({(one.key, one.always) for one in found}) == 1}


def page_table(library: str) -> Iterator[str]:
    """The table of a library for docs/moving-in.md, as lines of markdown."""
    yield "| name | here | |"
    yield "|---|---|---|"
    for name, row in names_of(library).items():
        here = f"`{row.key}`" if row.key else "nothing to set" if row.always else "–"
        yield f"| `{name}` | {here} | {row.how or row.always or (f'{row.why}: {row.do}' if row.why else '')} |"


def value_hint(key: str, value: str) -> str | None:
    """What to do about a value that another library has for its counterpart of `key`; None: none of them has it."""
    key = re.sub(r"^eval\.sets\..+\.reward\.", "reward.", key)  # a set's own has the same values
    return VALUES.get(key, {}).get(value.lower())
