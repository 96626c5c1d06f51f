"""Words of a script: quotes, variables, substitutions."""

from __future__ import annotations

import re
from abc import abstractmethod

from launchers.moving_in.shell.characters import Characters
from launchers.moving_in.shell.syntax import Arithmetic, Command, Part, Substitution, Text, Variable, Word

ENDS = " \t\r\n;&|<>()"
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
SPECIAL = "@*#?$!-0123456789"
OPERATORS = (
    ":-",
    ":=",
    ":?",
    ":+",
    "##",
    "%%",
    "//",
    "^^",
    ",,",
    "-",
    "=",
    "?",
    "+",
    "#",
    "%",
    "/",
    "^",
    ",",
    "@",
    ":",
)
ESCAPED = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", "'": "'", '"': '"', "a": "\a", "e": "\x1b"}


class Words(Characters):
    """A reader of words."""

    @abstractmethod
    def commands(self, *ends: str) -> tuple[Command, ...]:
        """Commands up to one of these words, which stays ahead."""

    def word(self, ends: str = ENDS) -> Word:
        """The word here; empty where one of `ends` comes next."""
        parts: list[Part] = []
        while self.at < len(self.text) and (self.next() not in ends or self._process()):
            if self._process():
                begin, line = self.at, self.line
                self.at += 2
                parts.append(self._substitution(begin, line, True))
            elif self.peek("\\\n"):
                self.at += 2
            elif not self._quoted(parts):
                parts.append(self._dollar(False) or self._plain(ends))
        return tuple(parts)

    def _process(self) -> bool:
        """Whether `<(` or `>(` comes next, a file that is a command's output or input."""
        return self.peek("<(") or self.peek(">(")

    def document_word(self, body: str) -> Word:
        """The body of a here-document: as between double quotes, which themselves are plain there."""
        inner = type(self)(body)
        inner._depth = self._depth + 1
        return inner.double_quoted("")

    def double_quoted(self, closing: str) -> Word:
        """The parts up to the closing quote, which is taken; empty: up to the end of the text."""
        parts: list[Part] = [Text("", quoted=True)]
        line = self.line
        while not (closing and self.take(closing)):
            if self.at >= len(self.text):
                if closing:
                    self.fail("the end of the file", f"a closing {closing}", line)
                break
            if self.take("\\\n"):
                continue
            if self.next() == "\\" and self.text[self.at + 1 : self.at + 2] in ('"', "\\", "$", "`"):
                parts.append(Text(self.text[self.at + 1], quoted=True))
                self.at += 2
                continue
            found = self._dollar(True)
            if found is None:
                found = Text(self.next(), quoted=True)
                self.at += 1
            parts.append(found)
        return _merged(parts)

    def _quoted(self, parts: list[Part]) -> bool:
        line = self.line
        if self.take('"') or self.take('$"'):
            parts.extend(self.double_quoted('"'))
        elif self.take("$'"):
            text = self.until(lambda: self.peek("'"), "'", line)
            self.at += 1
            parts.append(Text(re.sub(r"\\(.)", lambda one: ESCAPED.get(one[1], one[0]), text), quoted=True))
        elif self.take("'"):
            end = self.text.find("'", self.at)
            if end < 0:
                self.fail("the end of the file", "a closing '", line)
            parts.append(Text(self.text[self.at : end], quoted=True))
            self.at = end + 1
        elif self.next() == "\\" and self.at + 1 < len(self.text):
            parts.append(Text(self.text[self.at + 1], quoted=True))
            self.at += 2
        else:
            return False
        return True

    def _plain(self, ends: str) -> Text:
        begin = self.at
        self.at += 1
        while self.at < len(self.text) and self.next() not in ends + "\\'\"$`":
            self.at += 1
        return Text(self.text[begin : self.at])

    def _dollar(self, quoted: bool) -> Part | None:
        """What a `$` or a backquote begins; None where there is none, or it is a plain character."""
        begin, line = self.at, self.line
        if self.take("`"):
            text = self.until(lambda: self.peek("`"), "`", line)
            self.at += 1
            inner = type(self)(text)
            inner._depth = self._depth
            with self.nested(), inner.nested():
                return Substitution(inner.commands(), self.text[begin : self.at], quoted)
        if self.next() != "$":
            return None
        with self.nested():
            if self.take("$(("):
                return self._arithmetic(begin, line, quoted)
            if self.take("$("):
                return self._substitution(begin, line, quoted)
            if self.take("${"):
                return self._braces(line, quoted)
        match = NAME.match(self.text, self.at + 1)
        if match:
            self.at = match.end()
            return Variable(match[0], quoted=quoted)
        if (name := self.text[self.at + 1 : self.at + 2]) and name in SPECIAL:
            self.at += 2
            return Variable(name, index=name if name in "@*" else "", quoted=quoted)
        return None

    def _substitution(self, begin: int, line: int, quoted: bool) -> Part:
        commands = self.commands(")")
        if not self.take(")"):
            self.fail("the end of the file", "a closing )", line)
        return Substitution(commands, self.text[begin : self.at], quoted)

    def _arithmetic(self, begin: int, line: int, quoted: bool) -> Part:
        expression = self.expression("))", line)
        return Arithmetic(expression, self.text[begin : self.at], quoted)

    def expression(self, closing: str, line: int) -> Word:
        """Arithmetic up to its closing characters, which are taken."""
        level, begin = 0, self.at
        while level or not self.peek(closing):
            if self.at >= len(self.text):
                self.fail("the end of the file", f"a closing {closing}", line)
            level += {"(": 1, ")": -1}.get(self.next(), 0)
            self.at += 1
        text = self.text[begin : self.at]
        self.at += len(closing)
        return self.document_word(text)

    def _braces(self, line: int, quoted: bool) -> Part:
        operator = "length" if self.peek("#") and not self.peek("#}") and self.take("#") else ""
        operator = operator or ("indirect" if self.peek("!") and not self.peek("!}") and self.take("!") else "")
        match = NAME.match(self.text, self.at)
        name = match[0] if match else self.next()
        if not match and name not in SPECIAL:
            self.fail(f"${{{self.text[self.at : self.at + 12]}", "the name of a variable")
        self.at += len(name)
        index = name if name in "@*" else ""
        if match and self.take("["):
            index = self.until(lambda: self.peek("]"), "]", line)
            self.at += 1
        argument: Word | None = None
        if not operator:
            operator = next((one for one in OPERATORS if self.take(one)), "")
        if operator and operator not in ("length", "indirect"):
            argument = self._argument()
        if not self.take("}"):
            self.fail(f"{self.text[self.at : self.at + 12]!r} in ${{{name}", "a closing }", line)
        return Variable(name, index, operator, argument, quoted)

    def _argument(self) -> Word:
        return self.word(ends="}")


def _merged(parts: list[Part]) -> Word:
    """Neighbouring texts of one kind as one."""
    merged: list[Part] = []
    for part in parts:
        last = merged[-1] if merged else None
        if isinstance(part, Text) and isinstance(last, Text) and part.quoted == last.quoted:
            merged[-1] = Text(last.text + part.text, part.quoted)
        else:
            merged.append(part)
    return tuple(part for part in merged if part != Text("", quoted=True)) or tuple(merged)


def literal(word: Word) -> str | None:
    """The text of a word without variables and quotes; None where it has any."""
    if all(isinstance(part, Text) and not part.quoted for part in word):
        return "".join(part.text for part in word if isinstance(part, Text))
    return None
