"""What following a script knows at one moment."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from launchers.moving_in.shell.characters import ScriptError
from launchers.moving_in.shell.gaps import Gaps
from launchers.moving_in.shell.syntax import Function

MOST_STEPS = 20_000
LONGEST_VALUE = 1_000_000
Value = str | list[str]


@dataclass(frozen=True)
class Launch:
    """A start of slime's trainer.

    Attributes:
        line: in its file.
        program: `train.py`.
        arguments: the words behind it, which may hold marks of gaps.
        runtime_env: of `ray job submit`, as text; empty if there is none.
        joined: flags of the line behind it are among them, though its own end lacks a backslash.
    """

    line: int
    program: str
    arguments: tuple[str, ...]
    runtime_env: str = ""
    joined: bool = False


@dataclass
class Shared:
    """What all shells of a script share."""

    gaps: Gaps = field(default_factory=Gaps)
    launches: list[Launch] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)  # that the script itself writes
    sourced: list[Path] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)  # sourced files whose name only a command would tell
    assumed: list[str] = field(default_factory=list)  # conditions that only a run could decide
    steps: int = 0
    depth: int = 0

    def step(self, line: int | None = None) -> None:
        """Count a command; a script that loops for ever is refused."""
        self.steps += 1
        if self.steps > MOST_STEPS:
            raise ScriptError(line, f"more than {MOST_STEPS:,} commands", "a launch script", "unroll its loop")


@dataclass
class Shell:
    """One shell: variables and functions, and where it is."""

    shared: Shared
    source: Path
    folder: str
    variables: dict[str, Value] = field(default_factory=dict)
    functions: dict[str, Function] = field(default_factory=dict)
    arguments: list[str] = field(default_factory=list)

    def copy(self) -> Shell:
        """A shell of its own, as `( … )` and `$( … )` have."""
        values = {name: list(value) if isinstance(value, list) else value for name, value in self.variables.items()}
        return Shell(self.shared, self.source, self.folder, values, dict(self.functions), list(self.arguments))

    def get(self, name: str) -> Value | None:
        """The value of a variable or parameter; None where it has none."""
        if name == "BASH_SOURCE":
            return [str(self.source)]
        if name == "0":
            return str(self.source)
        if name in ("@", "*"):
            return list(self.arguments)
        if name == "#":
            return str(len(self.arguments))
        if name.isdigit():
            return self.arguments[int(name) - 1] if 0 < int(name) <= len(self.arguments) else None
        if name == "PWD":
            return self.folder
        return self.variables.get(name)

    def put(self, name: str, value: Value) -> None:
        """Set a variable.

        Raises:
            ScriptError: its value grows beyond all bounds.
        """
        if sum(map(len, value)) > LONGEST_VALUE:
            raise ScriptError(
                None, f"a value of {name} above {LONGEST_VALUE:,} characters", "a launch script", "shorten it"
            )
        self.variables[name] = value
