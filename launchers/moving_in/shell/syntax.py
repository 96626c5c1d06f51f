"""The nouns of a script: words and the commands made of them."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Text:
    """Characters as they stand; quoted ones are never split or taken for a pattern."""

    text: str
    quoted: bool = False


@dataclass(frozen=True)
class Variable:
    """`$NAME`, or `${NAME[INDEX]OPERATOR ARGUMENT}`.

    Attributes:
        index: empty; "@" or "*": all elements; else arithmetic.
        operator: as bash spells it: ":-", "##", "/", …; "length" is `${#NAME}`, "indirect" `${!NAME}`.
    """

    name: str
    index: str = ""
    operator: str = ""
    argument: Word | None = None
    quoted: bool = False


@dataclass(frozen=True)
class Substitution:
    """`$(COMMANDS)`; `text` is how the script spells it."""

    commands: tuple[Command, ...]
    text: str
    quoted: bool = False


@dataclass(frozen=True)
class Arithmetic:
    """`$((EXPRESSION))`."""

    expression: Word
    text: str
    quoted: bool = False


Part = Text | Variable | Substitution | Arithmetic
Word = tuple[Part, ...]


@dataclass(frozen=True)
class Assignment:
    """`NAME=value`, `NAME+=value`, `NAME=(values)`."""

    name: str
    value: Word | tuple[Word, ...]
    is_array: bool = False
    appends: bool = False
    index: str = ""


@dataclass
class Redirect:
    """`> word`, or a here-document, whose body follows the line."""

    operator: str
    target: Word
    body: Word | None = None


@dataclass(frozen=True)
class Simple:
    """Assignments, the words of a command, and where its output goes."""

    line: int
    assignments: tuple[Assignment, ...] = ()
    words: tuple[Word, ...] = ()
    redirects: tuple[Redirect, ...] = ()


@dataclass(frozen=True)
class Chain:
    """Commands joined by `&&`, `||` and `|`: the operator stands before its command, the first has none."""

    parts: tuple[tuple[str, Command], ...]


@dataclass(frozen=True)
class Negated:
    """`! command`."""

    command: Command


@dataclass(frozen=True)
class Calculation:
    """`(( expression ))`."""

    expression: Word


@dataclass(frozen=True)
class Choice:
    """`if`, with its branches in order; an `else` has no condition."""

    branches: tuple[tuple[tuple[Command, ...] | None, tuple[Command, ...]], ...]


@dataclass(frozen=True)
class Case:
    """`case word in pattern) commands ;; esac`."""

    word: Word
    branches: tuple[tuple[tuple[Word, ...], tuple[Command, ...]], ...]


@dataclass(frozen=True)
class ForEach:
    """`for name in words; do … done`."""

    name: str
    words: tuple[Word, ...]
    body: tuple[Command, ...]


@dataclass(frozen=True)
class Counting:
    """`for ((begin; condition; step)); do … done`."""

    begin: Word
    condition: Word
    step: Word
    body: tuple[Command, ...]


@dataclass(frozen=True)
class Loop:
    """`while` or `until`."""

    condition: tuple[Command, ...]
    body: tuple[Command, ...]
    until: bool


@dataclass(frozen=True)
class Group:
    """`{ … }`, or `( … )`, which is a shell of its own."""

    commands: tuple[Command, ...]
    own_shell: bool
    redirects: tuple[Redirect, ...] = field(default=())


@dataclass(frozen=True)
class Function:
    """`name() { … }`."""

    name: str
    body: Command


Command = Simple | Chain | Negated | Calculation | Choice | Case | ForEach | Counting | Loop | Group | Function
