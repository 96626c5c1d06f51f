"""A run file in the making: its keys with the reason of each, and what could not become a key."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from launchers.moving_in.flags import Flag

LOSSES = {
    "task": "another kind of training, which is not built",
    "code": "code of yours, to be rewritten for this interface",
    "result": "changes what is learnt or measured",
    "memory": "needs more memory, or another layout",
    "speed": "may be slower",
    "view": "nothing of the training",
}
"""What it means that a flag has no counterpart, gravest first."""


@dataclass(frozen=True)
class Setting:
    """A key of the run file.

    Attributes:
        source: the flag that says it; empty: slime's default does.
        comment: written behind the value.
    """

    value: Any
    source: str = ""
    comment: str = ""


@dataclass(frozen=True)
class Lost:
    """A flag without a counterpart, or with one that is not the same."""

    flag: str
    why: str
    do: str
    loses: str


@dataclass
class Draft:
    """What has become of a launch script.

    Attributes:
        settings: dotted keys of the run file, eval.sets.NAME.KEY among them.
        nothing: flags for which nothing has to be set, and why.
        lost: flags without a counterpart.
        todo: what a person has to fill in.
    """

    settings: dict[str, Setting] = field(default_factory=dict)
    nothing: dict[str, str] = field(default_factory=dict)
    lost: list[Lost] = field(default_factory=list)
    todo: list[str] = field(default_factory=list)

    def put(self, key: str, value: Any, flag: Flag | str | None = None, comment: str = "") -> None:
        """Set a key, because a flag says so."""
        self.settings[key] = Setting(value, str(flag or ""), comment)

    def default(self, key: str, value: Any, why: str) -> None:
        """Set a key that no flag named, because slime's default is not ours; a key that is set stays."""
        if key not in self.settings:
            self.settings[key] = Setting(value, "", why)

    def value(self, key: str, default: Any) -> Any:
        """The value of a key; the default where it is not set."""
        setting = self.settings.get(key)
        return default if setting is None else setting.value

    def lose(self, flag: Flag | str, why: str, do: str, loses: str) -> None:
        """Say that a flag has no counterpart."""
        self.lost.append(Lost(str(flag), why, do, loses))

    def skip(self, flag: Flag | str, why: str) -> None:
        """Say that nothing has to be set for a flag."""
        self.nothing[str(flag)] = why

    def losses(self, *kinds: str) -> list[Lost]:
        """What was lost of these kinds."""
        return [lost for lost in self.lost if lost.loses in kinds]
