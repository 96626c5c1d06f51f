"""Commands of a script, as far as launch scripts have them."""

from __future__ import annotations

import re

from launchers.moving_in.shell.characters import ScriptError
from launchers.moving_in.shell.syntax import (
    Assignment,
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
    Redirect,
    Simple,
    Text,
    Word,
)
from launchers.moving_in.shell.words import ENDS, NAME, Words, literal

__all__ = ["DECLARING", "ScriptError", "parse"]

ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?:\[([^\]]*)\])?(\+?)=")
FUNCTION = re.compile(r"(?:function[ \t]+)?([A-Za-z_][\w.:-]*)[ \t]*\(\)|function[ \t]+([A-Za-z_][\w.:-]*)")
REDIRECT = re.compile(r"(\d*|&)(<<<|<<-|<<|<>|>>|>&|<&|>\||>|<)")
RESERVED = ("then", "elif", "else", "fi", "do", "done", "esac", "in")
DECLARING = ("export", "declare", "local", "readonly", "typeset")


def parse(text: str) -> tuple[Command, ...]:
    """The commands of a script.

    Raises:
        ScriptError: with the line.
    """
    parser = Parser(text.replace("\r\n", "\n"))
    try:
        commands = parser.commands()
    except RecursionError:
        parser.fail("commands nested too deeply", "a plain launch script")
    if parser.at < len(parser.text):
        parser.fail(f"{parser.text[parser.at : parser.at + 12]!r}", "a command")
    return commands


class Parser(Words):
    """A reader of commands."""

    def commands(self, *ends: str) -> tuple[Command, ...]:
        """Commands up to one of these words, or the end of the text."""
        found: list[Command] = []
        with self.nested():
            while True:
                self.skip_lines()
                if self.at >= len(self.text) or any(self._ahead(end) for end in ends):
                    return tuple(found)
                begin = self.at
                found.append(self._chain())
                self.skip_blanks()
                while self.next() and self.next() in ";&" and not self.peek(";;"):
                    self.at += 1
                if self.at == begin:
                    self.fail(f"{self.text[begin : begin + 12]!r}", "a command")

    def _ahead(self, word: str) -> bool:
        """Whether a reserved word or closing character comes next."""
        if not self.peek(word):
            return False
        after = self.text[self.at + len(word) : self.at + len(word) + 1]
        return not word.isalpha() or not after or after in ENDS

    def _reserved(self, word: str) -> bool:
        self.skip_blanks()
        if self._ahead(word):
            self.at += len(word)
            return True
        return False

    def _wanted(self, word: str, opening: str, line: int) -> None:
        self.skip_lines()
        if not self._reserved(word):
            found = repr(self.text[self.at : self.at + 12]) if self.at < len(self.text) else "the end of the file"
            self.fail(f"{found} behind `{opening}` of line {line}", f"`{word}`")

    def _chain(self) -> Command:
        parts: list[tuple[str, Command]] = [("", self._command())]
        while True:
            self.skip_blanks()
            operator = next((one for one in ("&&", "||", "|&", "|") if self.take(one)), None)
            if operator is None:
                return parts[0][1] if len(parts) == 1 else Chain(tuple(parts))
            self.skip_lines()
            parts.append((operator[:2] if operator != "|&" else "|", self._command()))

    def _command(self) -> Command:
        self.skip_blanks()
        line = self.line
        for word, read in (("if", self._choice), ("case", self._case), ("for", self._for)):
            if self._reserved(word):
                return read(line)
        for word in ("while", "until"):
            if self._reserved(word):
                condition = self.commands("do")
                return Loop(condition, self._body(word, line), word == "until")
        if self.take("(("):
            return Calculation(self.expression("))", line))
        if self.take("("):
            return self._group(")", "(", line)
        if self._ahead("{"):
            self.at += 1
            return self._group("}", "{", line)
        if self._ahead("!") and self.text[self.at + 1 : self.at + 2] in (" ", "\t"):
            self.at += 1
            return Negated(self._command())
        match = FUNCTION.match(self.text, self.at)
        if match:
            self.at = match.end()
            self.skip_lines()
            return Function(match[1] or match[2], self._command())
        return self._test(line) if self._reserved("[[") else self._simple(line)

    def _group(self, closing: str, opening: str, line: int) -> Group:
        commands = self.commands(closing)
        self._wanted(closing, opening, line)
        return Group(commands, closing == ")", tuple(self._redirects()))

    def _choice(self, line: int) -> Choice:
        branches: list[tuple[tuple[Command, ...] | None, tuple[Command, ...]]] = []
        condition: tuple[Command, ...] | None = self.commands("then")
        while True:
            if condition is not None:
                self._wanted("then", "if", line)
            branches.append((condition, self.commands("elif", "else", "fi")))
            if self._reserved("elif"):
                condition = self.commands("then")
            elif condition is not None and self._reserved("else"):
                condition = None
            else:
                self._wanted("fi", "if", line)
                list(self._redirects())
                return Choice(tuple(branches))

    def _case(self, line: int) -> Case:
        self.skip_blanks()
        word = self.word()
        branches: list[tuple[tuple[Word, ...], tuple[Command, ...]]] = []
        self._wanted("in", "case", line)
        while True:
            self.skip_lines()
            if self._reserved("esac"):
                return Case(word, tuple(branches))
            self.take("(")
            patterns = []
            while not self.take(")"):
                self.skip_blanks()
                pattern = self.word()
                if not pattern:
                    self.fail(f"{self.text[self.at : self.at + 12]!r} in `case` of line {line}", "a pattern and )")
                patterns.append(pattern)
                self.skip_blanks()
                self.take("|")
            commands = self.commands(";;", "esac")
            self.take(";;&") or self.take(";;")
            branches.append((tuple(patterns), commands))

    def _for(self, line: int) -> Command:
        self.skip_blanks()
        if self.take("(("):
            begin, condition = self.expression(";", line), self.expression(";", line)
            step = self.expression("))", line)
            return Counting(begin, condition, step, self._body("for", line))
        name = literal(self.word()) or ""
        if not NAME.fullmatch(name):
            self.fail("`for` without a name", "for NAME in words")
        self.skip_lines()
        words: list[Word] = []
        if self._reserved("in"):
            self.skip_blanks()
            while word := self.word():
                words.append(word)
                self.skip_blanks()
        return ForEach(name, tuple(words), self._body("for", line))

    def _body(self, opening: str, line: int) -> tuple[Command, ...]:
        self.skip_blanks()
        self.take(";")
        self._wanted("do", opening, line)
        body = self.commands("done")
        self._wanted("done", opening, line)
        list(self._redirects())
        return body

    def _test(self, line: int) -> Simple:
        """`[[ … ]]`: operators are words there."""
        words: list[Word] = [(Text("[["),)]
        while True:
            self.skip_lines()
            if self._reserved("]]"):
                return Simple(line, words=(*words, (Text("]]"),)))
            operator = next((one for one in ("&&", "||", "<", ">", "(", ")") if self.take(one)), None)
            word = (Text(operator),) if operator else self.word(ENDS if words[-1] != (Text("=~"),) else " \t\n")
            if not word:
                self.fail("`[[` without its end", "]]", line)
            words.append(word)

    def _simple(self, line: int) -> Simple:
        assignments: list[Assignment] = []
        words: list[Word] = []
        redirects: list[Redirect] = []
        while True:
            self.skip_blanks()
            if found := list(self._redirects()):
                redirects += found
                continue
            declaring = bool(words) and literal(words[0]) in DECLARING
            match = ASSIGNMENT.match(self.text, self.at) if not words or declaring else None
            if match:
                self.at = match.end()
                assignments.append(self._assignment(match))
                continue
            word = self.word()
            if not word:
                return Simple(line, tuple(assignments), tuple(words), tuple(redirects))
            if not words and literal(word) in RESERVED:
                self.fail(f"`{literal(word)}` without its beginning", "a command", line)
            words.append(word)

    def _assignment(self, match: re.Match[str]) -> Assignment:
        name, index, appends, line = match[1], match[2] or "", bool(match[3]), self.line
        if not self.take("("):
            return Assignment(name, self.word(), appends=appends, index=index)
        values: list[Word] = []
        while True:
            self.skip_lines()
            if self.take(")"):
                return Assignment(name, tuple(values), True, appends)
            word = self.word()
            if not word:
                rest = self.text[self.at : self.at + 12]
                self.fail(f"{rest!r} in {name}=(" if rest else f"no end of {name}=(", "words and a closing )", line)
            values.append(word)

    def _redirects(self) -> list[Redirect]:
        found: list[Redirect] = []
        while True:
            self.skip_blanks()
            match = REDIRECT.match(self.text, self.at)
            if not match or self.peek("<(") or self.peek(">("):
                return found
            self.at = match.end()
            self.skip_blanks()
            redirect = Redirect(match[2], self.word())
            if not redirect.target:
                self.fail(f"nothing behind {match[0]}", "a file")
            if match[2] in ("<<", "<<-"):
                texts = [part.text for part in redirect.target if isinstance(part, Text)]
                quoted = any(isinstance(part, Text) and part.quoted for part in redirect.target)
                self.await_document(redirect, "".join(texts), quoted)
            found.append(redirect)
