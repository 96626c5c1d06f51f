"""Words with their variables put in, split into fields as bash splits them."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterator, MutableMapping

from launchers.moving_in.shell.arithmetic import calculate
from launchers.moving_in.shell.gaps import Gap
from launchers.moving_in.shell.state import Shell, Value
from launchers.moving_in.shell.syntax import Arithmetic, Command, Part, Substitution, Text, Variable, Word

Output = Callable[[Shell, tuple[Command, ...]], str | None]
"""What commands print in a shell; None: that is not known."""


def fields(word: Word, shell: Shell, output: Output) -> list[str]:
    """The fields of a word: none, one or several."""
    found: list[str] = []
    open_field: str | None = None
    for part in word:
        pieces, splits = _pieces(part, shell, output)
        for index, piece in enumerate(pieces):
            if index or (splits and piece == ""):
                found += [] if open_field is None else [open_field]
                open_field = None
            if piece or not splits:
                open_field = (open_field or "") + piece
    return found if open_field is None else [*found, open_field]


def _pieces(part: Part, shell: Shell, output: Output) -> tuple[list[str], bool]:
    """A part as pieces, the first of which continues the field before; and whether empty ones only separate."""
    value = values(part, shell, output)
    if isinstance(part, Text) or (part.quoted and isinstance(value, str)):
        assert isinstance(value, str)
        return [value], False
    if part.quoted:
        return list(value), False
    texts = [value] if isinstance(value, str) else value
    pieces: list[str] = []
    for index, text in enumerate(texts):
        split = re.split(r"[ \t\n]+", text) if text else []
        pieces += split if not index else ["", *split] if split and split[0] != "" else split
    return pieces, True


def text_of(word: Word, shell: Shell, output: Output) -> str:
    """A word as one text, as where a value is assigned."""
    found = (values(part, shell, output) for part in word)
    return "".join(one if isinstance(one, str) else " ".join(one) for one in found)


def values(part: Part, shell: Shell, output: Output) -> Value:
    """What a part stands for; a list where it is all elements of an array."""
    gaps = shell.shared.gaps
    match part:
        case Text(text):
            return text
        case Substitution(commands, text):
            shell.shared.step()
            printed = output(shell, commands)
            return gaps.mark(Gap(" ".join(text.split()))) if printed is None else printed.rstrip("\n")
        case Arithmetic(expression, text):
            number = arithmetic(text_of(expression, shell, output), shell)
            return gaps.mark(Gap(text)) if number is None else str(number)
        case Variable():
            return _variable(part, shell, output)


def arithmetic(text: str, shell: Shell) -> int | None:
    """The value of an expression; None where it is not known."""
    known = shell.shared.gaps.as_set(text)
    try:
        return None if known is None else calculate(known, _Numbers(shell))
    except ValueError:
        return None


class _Numbers(MutableMapping[str, int]):
    """A shell's variables as numbers."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell

    def __getitem__(self, name: str) -> int:
        value = self._shell.get(name)
        text = value[0] if isinstance(value, list) and value else value or "0"
        text = text if isinstance(text, str) else "0"
        if self._shell.shared.gaps.within(text):
            raise ValueError(name)
        return int(text) if re.fullmatch(r"\s*[-+]?\d{1,18}\s*", text) else 0

    def __setitem__(self, name: str, value: int) -> None:
        self._shell.put(name, str(value))

    def __delitem__(self, name: str) -> None:
        raise NotImplementedError

    def __iter__(self) -> Iterator[str]:
        return iter(self._shell.variables)

    def __len__(self) -> int:
        return len(self._shell.variables)


def _variable(part: Variable, shell: Shell, output: Output) -> Value:
    if part.operator == "indirect":
        return _variable(Variable(_one(shell.get(part.name), ""), quoted=part.quoted), shell, output)
    value, is_all = shell.get(part.name), part.index in ("@", "*")
    if part.operator == "length":
        return str(len(value)) if isinstance(value, list) and is_all else str(len(_one(value, "")))
    if isinstance(value, list) and not is_all:
        value = _element(value, part.index, shell)
    if is_all and isinstance(value, str):
        value = [value]
    if part.operator in (":-", "-", ":=", "=", ":?", "?", ":+", "+"):
        return _default(part, value, shell, output)
    if value is None:
        return [] if is_all else shell.shared.gaps.mark(Gap(f"${part.name}", part.name))
    if part.argument is not None or part.operator:
        argument = text_of(part.argument or (), shell, output)
        changed = [
            _changed(one, part.operator, argument, shell) for one in ([value] if isinstance(value, str) else value)
        ]
        value = changed if isinstance(value, list) else changed[0]
    if isinstance(value, list) and part.index == "*" and part.quoted:
        return _one(shell.get("IFS"), " ")[:1].join(value)
    return value


def _element(value: list[str], index: str, shell: Shell) -> str | None:
    number = arithmetic(index or "0", shell)
    return value[number] if number is not None and -len(value) <= number < len(value) else None


def _one(value: Value | None, default: str) -> str:
    return default if value is None else value if isinstance(value, str) else value[0] if value else default


def _default(part: Variable, value: Value | None, shell: Shell, output: Output) -> Value:
    """`${X:-word}` and its kin; a variable that only holds unset ones is empty."""
    texts = [] if value is None else [value] if isinstance(value, str) else value
    gaps = shell.shared.gaps
    empty = value is None or (part.operator.startswith(":") and all(gaps.as_set(text) == "" for text in texts))
    kind = part.operator[-1]
    if kind == "+":
        return "" if empty else text_of(part.argument or (), shell, output)
    if not empty:
        assert value is not None
        return value
    if kind == "?":
        return gaps.mark(Gap(f"${part.name}", part.name))
    found = text_of(part.argument or (), shell, output)
    if kind == "=":
        shell.put(part.name, found)
    return found


def _changed(value: str, operator: str, argument: str, shell: Shell) -> str:
    """A value with a beginning or an end cut off, or something in it replaced."""
    match operator:
        case "^" | "^^":
            return value.upper() if operator == "^^" else value[:1].upper() + value[1:]
        case "," | ",,":
            return value.lower() if operator == ",," else value[:1].lower() + value[1:]
        case "#" | "##" | "%" | "%%":
            return _cut(value, operator, argument)
        case "/" | "//":
            pattern, _, by = argument.partition("/")
            return value.replace(pattern, by, -1 if operator == "//" else 1) if pattern else value
        case ":":
            begin, _, length = argument.partition(":")
            first, count = arithmetic(begin, shell), arithmetic(length, shell) if length else len(value)
            return value if first is None or count is None else value[first:][: max(0, count)]
    return value


def _cut(value: str, operator: str, pattern: str) -> str:
    lengths = range(len(value) + 1) if len(operator) == 1 else range(len(value), -1, -1)
    for length in lengths:
        cut, rest = (value[:length], value[length:]) if operator[0] == "#" else _tail(value, length)
        if fnmatch.fnmatchcase(cut, pattern):
            return rest
    return value


def _tail(value: str, length: int) -> tuple[str, str]:
    return value[len(value) - length :], value[: len(value) - length]
