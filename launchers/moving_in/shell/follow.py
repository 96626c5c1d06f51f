"""A script followed to where it starts slime's trainer. Nothing is run: what a command would print is a gap."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from launchers.moving_in.shell.characters import ScriptError
from launchers.moving_in.shell.commands import Commands, Exit, Return
from launchers.moving_in.shell.expand import arithmetic
from launchers.moving_in.shell.gaps import Gaps
from launchers.moving_in.shell.state import Launch, Shared, Shell
from launchers.moving_in.shell.syntax import (
    Calculation,
    Case,
    Chain,
    Choice,
    Command,
    Counting,
    ForEach,
    Function,
    Group,
    Loop,
    Negated,
    Simple,
    Word,
)


@dataclass(frozen=True)
class Followed:
    """What a script was found to do.

    Attributes:
        launches: starts of the trainer, in order.
        files: what the script writes by itself, by name.
        sourced: the files that it reads.
        unread: sourced files whose name only a command would tell, with their lines.
        assumed: conditions that only a run could decide, taken for false.
    """

    launches: tuple[Launch, ...]
    gaps: Gaps
    files: Mapping[str, str]
    sourced: tuple[Path, ...]
    unread: tuple[str, ...]
    assumed: tuple[str, ...]


def follow(script: Path, environment: Mapping[str, str], folders: Sequence[Path]) -> Followed:
    """Follow a script.

    Args:
        environment: variables that its caller sets.
        folders: where a sourced file is looked for by its name, if it is not where the script says.
    Raises:
        ScriptError: it cannot be read, or is not of this subset of bash.
    """
    shared = Shared()
    path = script.absolute()
    shell = Shell(shared, path, str(path.parent), dict(environment))
    follower = _Follower([*folders, *_model_folders(path)])
    try:
        follower.file(shell, path)
    except (Return, Exit):
        pass
    except RecursionError as error:
        raise ScriptError(None, "a script nested too deeply", "a launch script", "write it more plainly") from error
    return Followed(
        tuple(shared.launches),
        shared.gaps,
        shared.files,
        tuple(shared.sourced),
        tuple(shared.unread),
        tuple(shared.assumed),
    )


def _model_folders(script: Path) -> Iterable[Path]:
    """The folders in which slime keeps its model files, from the script's own place."""
    for folder in script.parents:
        yield folder / "scripts" / "models"


class _Follower(Commands):
    def every(self, shell: Shell, commands: Iterable[Command]) -> bool | None:
        result: bool | None = True
        for command in commands:
            result = self.one(shell, command)
        return result

    def one(self, shell: Shell, command: Command) -> bool | None:
        shell.shared.step(command.line if isinstance(command, Simple) else None)
        match command:
            case Simple():
                return self.simple(shell, command)
            case Chain(parts):
                return self._chain(shell, parts)
            case Negated(inner):
                found = self.one(shell, inner)
                return None if found is None else not found
            case Calculation(expression):
                number = arithmetic(self.text(shell, expression), shell)
                return None if number is None else number != 0
            case Choice(branches):
                return self._choice(shell, branches)
            case Case(word, branches):
                return self._case(shell, word, branches)
            case ForEach(name, words, body):
                return self._for_each(shell, name, words, body)
            case Counting():
                return self._counting(shell, command)
            case Loop(condition, body, until):
                while self.every(shell, condition) is (not until):
                    self.every(shell, body)
                return True
            case Group(commands, own_shell):
                return self.every(shell.copy() if own_shell else shell, commands)
            case Function(name):
                shell.functions[name] = command
                return True

    def _chain(self, shell: Shell, parts: Sequence[tuple[str, Command]]) -> bool | None:
        result: bool | None = True
        for operator, command in parts:
            if (operator == "&&" and result is False) or (operator == "||" and result is not False):
                continue
            piped = operator == "|" or any(one == "|" for one, _ in parts)
            result = self.one(shell.copy() if piped else shell, command)
            result = None if piped else result
        return result

    def _choice(
        self, shell: Shell, branches: Sequence[tuple[tuple[Command, ...] | None, tuple[Command, ...]]]
    ) -> bool | None:
        for condition, commands in branches:
            found = True if condition is None else self.every(shell, condition)
            if found is None:
                shell.shared.assumed.append(_place(condition or ()))
            if found:
                return self.every(shell, commands)
        return True

    def _case(
        self, shell: Shell, word: Word, branches: Sequence[tuple[tuple[Word, ...], tuple[Command, ...]]]
    ) -> bool | None:
        known = shell.shared.gaps.as_set(self.text(shell, word))
        for patterns, commands in branches:
            texts = [self.text(shell, pattern) for pattern in patterns]
            if any(text == "*" or (known is not None and fnmatch.fnmatchcase(known, text)) for text in texts):
                return self.every(shell, commands)
        return True

    def _for_each(self, shell: Shell, name: str, words: tuple[Word, ...], body: tuple[Command, ...]) -> bool | None:
        found = self.fields(shell, words)
        for value in found:
            if any(not gap.variable for gap in shell.shared.gaps.within(value)):
                continue  # a command says over what the loop goes
            shell.put(name, value)
            self.every(shell, body)
        return True

    def _counting(self, shell: Shell, loop: Counting) -> bool | None:
        arithmetic(self.text(shell, loop.begin), shell)
        while arithmetic(self.text(shell, loop.condition), shell):
            self.every(shell, loop.body)
            arithmetic(self.text(shell, loop.step), shell)
            shell.shared.step()
        return True


def _place(condition: Sequence[Command]) -> str:
    """The line of a condition, as far as it is known."""
    for command in condition:
        if isinstance(command, Chain):
            return _place([one for _, one in command.parts])
        if isinstance(command, Simple):
            return f"line {command.line}"
    return "a condition"
