"""The text of a script, read from left to right, with its lines and here-documents."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from common.mistake import Mistake
from launchers.moving_in.shell.syntax import Redirect, Text, Word

MOST_NESTED = 60
BLANKS = " \t\r"


class ScriptError(ValueError):
    """A script that cannot be read, or followed; `mistake` says where and why."""

    def __init__(self, line: int | None, found: str, wanted: str, remedy: str) -> None:
        self.mistake = Mistake("", line, found, wanted, remedy)
        super().__init__(str(self.mistake))


class Characters:
    """A place in a text."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self._depth = 0
        self._waiting: list[tuple[Redirect, str, bool]] = []  # here-documents whose bodies follow this line

    @property
    def line(self) -> int:
        """Line of the place, from 1."""
        return self.text.count("\n", 0, self.at) + 1

    def fail(self, found: str, wanted: str, line: int | None = None) -> NoReturn:
        """The script is refused at this place."""
        remedy = "correct the script (bash -n SCRIPT says what bash thinks of it), or write it more plainly"
        raise ScriptError(line or self.line, found, wanted, remedy)

    def peek(self, text: str) -> bool:
        """Whether `text` comes next."""
        return self.text.startswith(text, self.at)

    def take(self, text: str) -> bool:
        """Whether `text` came next, and is now behind."""
        if self.peek(text):
            self.at += len(text)
            return True
        return False

    def next(self) -> str:
        """The next character; empty at the end."""
        return self.text[self.at : self.at + 1]

    def nested(self) -> _Nested:
        """A level of nesting, which ends with the block."""
        return _Nested(self)

    def skip_blanks(self) -> None:
        """Go behind blanks, continued lines and a comment; not behind a line's end."""
        while True:
            if self.next() and self.next() in BLANKS:
                self.at += 1
            elif self.peek("\\\n"):
                self.at += 2
            elif self.peek("\\\r\n"):
                self.at += 3
            else:
                break
        if self.next() == "#" and (self.at == 0 or self.text[self.at - 1] in BLANKS + "\n;&|()"):
            end = self.text.find("\n", self.at)
            self.at = len(self.text) if end < 0 else end

    def skip_lines(self) -> None:
        """Go behind blanks, comments and line ends."""
        self.skip_blanks()
        while self.end_line():
            self.skip_blanks()

    def end_line(self) -> bool:
        """Whether a line ended here; here-documents that were waiting for that are read."""
        if not self.take("\n"):
            return False
        waiting, self._waiting = self._waiting, []
        for redirect, delimiter, literal in waiting:
            body = self._document(redirect, delimiter)
            redirect.body = (Text(body, quoted=True),) if literal else self.document_word(body)
        return True

    def await_document(self, redirect: Redirect, delimiter: str, literal: bool) -> None:
        """The body of this redirection follows the line."""
        self._waiting.append((redirect, delimiter, literal))

    def document_word(self, body: str) -> Word:
        """The body of a here-document whose variables count."""
        raise NotImplementedError

    def _document(self, redirect: Redirect, delimiter: str) -> str:
        begin = self.line - 1
        lines: list[str] = []
        while self.at < len(self.text):
            end = self.text.find("\n", self.at)
            end = len(self.text) if end < 0 else end
            line = self.text[self.at : end]
            self.at = min(end + 1, len(self.text))
            if redirect.operator == "<<-":
                line = line.lstrip("\t")
            if line == delimiter:
                return "".join(f"{one}\n" for one in lines)
            lines.append(line)
        self.fail(f"no line {delimiter!r} behind here", "the end of the here-document", begin)

    def until(self, end: Callable[[], bool], closing: str, line: int) -> str:
        """The text up to where `end` first holds."""
        begin = self.at
        while not end():
            if self.at >= len(self.text):
                self.fail("the end of the file", f"a closing {closing}", line)
            self.at += 2 if self.next() == "\\" else 1
        return self.text[begin : self.at]


class _Nested:
    def __init__(self, place: Characters) -> None:
        self._place = place

    def __enter__(self) -> None:
        self._place._depth += 1
        if self._place._depth > MOST_NESTED:
            self._place.fail(f"more than {MOST_NESTED} levels of nesting", "a plain launch script")

    def __exit__(self, *_: object) -> None:
        self._place._depth -= 1
