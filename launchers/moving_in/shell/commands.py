"""Simple commands of a script: what they do to its shell, what they would print, whether they start the trainer."""

from __future__ import annotations

import posixpath
import re
import shlex
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from launchers.moving_in.local_files import LARGEST_BYTES, is_here
from launchers.moving_in.shell.characters import ScriptError
from launchers.moving_in.shell.conditions import test
from launchers.moving_in.shell.expand import arithmetic, fields, text_of
from launchers.moving_in.shell.gaps import without_marks
from launchers.moving_in.shell.parser import DECLARING, parse
from launchers.moving_in.shell.printing import formatted, joined, printed
from launchers.moving_in.shell.state import Launch, Shell
from launchers.moving_in.shell.syntax import Assignment, Chain, Command, Function, Group, Redirect, Simple, Word

TRAINER = re.compile(r"train\w*\.py")
ONLY_NAMING = ("echo", "printf", "cat", "cp", "mv", "rm", "ls", "grep", "sed", "pkill", "tee", "touch")
MOST_CALLS = 25


class Return(Exception):
    """`return` of a function or a sourced file."""


class Exit(Exception):
    """`exit`, once the trainer has been started."""


class Commands(ABC):
    """A follower of simple commands."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = folders

    @abstractmethod
    def one(self, shell: Shell, command: Command) -> bool | None:
        """Follow one command. Gives whether it succeeds; None: only a run would tell."""

    @abstractmethod
    def every(self, shell: Shell, commands: Iterable[Command]) -> bool | None:
        """Follow commands one after the other, and give the result of the last."""

    def file(self, shell: Shell, path: Path) -> None:
        """The commands of a file."""
        self.every(shell, parse(_read(path)))

    def simple(self, shell: Shell, command: Simple) -> bool | None:
        """Assignments, and the command that they are for."""
        before = dict(shell.variables)
        for assignment in command.assignments:
            self._assign(shell, assignment)
        words = self.fields(shell, command.words)
        given = next((self.text(shell, one.body) for one in command.redirects if one.body is not None), None)
        if not words:
            return True
        try:
            return self._run(shell, command, words, given)
        finally:
            if command.assignments and words[0] not in DECLARING:
                for assignment in command.assignments:  # `NAME=value command` sets it for the command only
                    shell.variables.pop(assignment.name, None)
                    if assignment.name in before:
                        shell.variables[assignment.name] = before[assignment.name]

    def _run(self, shell: Shell, command: Simple, words: list[str], given: str | None) -> bool | None:
        """What a command does to the shell, or whether it starts the trainer."""
        name = words[0]
        if name in ("[", "test", "[["):
            inner = words[1 : -1 if name != "test" else None]
            return test(inner, shell.shared.gaps)
        if name in shell.functions:
            return self._call(shell, shell.functions[name], words[1:])
        if self._launches(shell, command.line, words) or self._goes_on(shell, words):
            return None
        match name:
            case "source" | "." if len(words) > 1:
                return self._source(shell, command.line, words[1])
            case "cd":
                paths = [word for word in words[1:] if not word.startswith("-")]
                shell.folder = joined(shell.folder, paths[0]) if paths else shell.folder
            case "unset":
                for one in words[1:]:
                    shell.variables.pop(one, None)
            case "set" if "--" in words:
                shell.arguments = words[words.index("--") + 1 :]
            case "shift":
                count = int(words[1]) if len(words) > 1 and words[1].isdigit() else 1
                shell.arguments = shell.arguments[count:]
            case "printf" if len(words) > 3 and words[1] == "-v":
                shell.put(words[2], formatted(words[3], words[4:]))
            case "read" if given is not None:
                shell.put(words[-1], given)
            case "return":
                raise Return
            case "exit" if shell.shared.launches:
                raise Exit
            case "true" | ":" | "export" | "declare" | "local" | "readonly" | "typeset" | "set" | "exit":
                pass
            case "false":
                return False
            case "command" | "type" | "which":
                return False  # whether a program is there is not asked
            case _:
                return self._writes(shell, command, words, given)
        return True

    def _writes(self, shell: Shell, command: Simple, words: list[str], given: str | None) -> bool | None:
        """`cat > FILE <<EOF`, `echo … > FILE`: the script's own files are kept in mind."""
        text = printed(shell, words, given)
        for redirect in command.redirects:
            if redirect.operator in (">", ">|", ">>") and text is not None:
                name = self.text(shell, redirect.target)
                before = shell.shared.files.get(name, "") if redirect.operator == ">>" else ""
                shell.shared.files[name] = before + text
        return None if text is None else True

    def _call(self, shell: Shell, function: Function, arguments: list[str]) -> bool | None:
        shell.shared.depth += 1
        if shell.shared.depth > MOST_CALLS:
            raise ScriptError(
                None, f"more than {MOST_CALLS} calls in each other", "a launch script", "write it plainly"
            )
        before, shell.arguments = shell.arguments, arguments
        try:
            return self.one(shell, function.body)
        except Return:
            return True
        finally:
            shell.arguments = before
            shell.shared.depth -= 1

    def _source(self, shell: Shell, line: int, name: str) -> bool | None:
        path = self._find(shell, name)
        if path is None and shell.shared.gaps.as_set(name) is None:
            shell.shared.unread.append(f"line {line}: {shell.shared.gaps.readable(name)}")
            return None
        if path is None:
            where = "give the folder that has it with --models-dir"
            found = f"no {posixpath.basename(name)} at {shell.shared.gaps.readable(name)}"
            raise ScriptError(line, found, "the file that the script sources", where)
        shell.shared.sourced.append(path)
        shell.shared.depth += 1
        if shell.shared.depth > MOST_CALLS:
            raise ScriptError(line, "files that source each other", "a launch script", "write it plainly")
        before, shell.source = shell.source, path
        try:
            self.file(shell, path)
        except Return:
            pass
        except ScriptError as error:
            raise _in_file(error, path) from error
        finally:
            shell.source = before
            shell.shared.depth -= 1
        return True

    def _find(self, shell: Shell, name: str) -> Path | None:
        """A sourced file: where the script says, else by its name among the folders."""
        places = [] if shell.shared.gaps.within(name) else [Path(joined(shell.folder, name))]
        base = posixpath.basename(name)
        if base and not shell.shared.gaps.within(base):
            places += [folder / base for folder in self._folders]
        return next((place for place in places if is_here(str(place))), None)

    def _launches(self, shell: Shell, line: int, words: list[str]) -> bool:
        """Whether these words start the trainer, which is then noted."""
        if words[0] in ONLY_NAMING:
            return False
        flat = [piece for word in words for piece in _own_words(word)]
        for index, word in enumerate(flat):
            if index and TRAINER.fullmatch(posixpath.basename(word)) and not word.startswith("-"):
                environment = _value_of("--runtime-env-json", flat[:index])
                launch = Launch(line, posixpath.basename(word), tuple(flat[index + 1 :]), environment)
                shell.shared.launches.append(launch)
                return True
        return False

    def _goes_on(self, shell: Shell, words: list[str]) -> bool:
        """Whether these are flags of the trainer, whose line lacks the backslash at its end."""
        launches = shell.shared.launches
        if not launches or not words[0].startswith("--"):
            return False
        launches[-1] = replace(launches[-1], arguments=(*launches[-1].arguments, *words), joined=True)
        return True

    def _assign(self, shell: Shell, assignment: Assignment) -> None:
        if assignment.is_array:
            found = self.fields(shell, assignment.value)  # type: ignore[arg-type]
            before = shell.variables.get(assignment.name, []) if assignment.appends else []
            shell.put(assignment.name, [*([before] if isinstance(before, str) else before), *found])
            return
        text = self.text(shell, assignment.value)  # type: ignore[arg-type]
        old = shell.variables.get(assignment.name)
        if assignment.index:
            self._assign_element(shell, assignment, old, text)
        elif assignment.appends and isinstance(old, str):
            shell.put(assignment.name, old + text)
        else:
            shell.put(assignment.name, text)

    def _assign_element(self, shell: Shell, assignment: Assignment, old: object, text: str) -> None:
        number = arithmetic(assignment.index, shell)
        values = list(old) if isinstance(old, list) else []
        if number is not None and 0 <= number <= len(values):
            values[number : number + 1] = [text]
            shell.put(assignment.name, values)

    def fields(self, shell: Shell, words: Iterable[Word]) -> list[str]:
        """The fields of words, put together."""
        return [field for word in words for field in fields(word, shell, self._printed)]

    def text(self, shell: Shell, word: Word) -> str:
        """A word as one text."""
        return text_of(word, shell, self._printed)

    def _printed(self, shell: Shell, commands: Sequence[Command]) -> str | None:
        """What commands print in a shell of their own; None: only a run would tell."""
        inner, text = shell.copy(), ""
        for command in commands:
            if isinstance(command, Chain) and all(operator in ("", "&&", "||") for operator, _ in command.parts):
                found = self._printed_chain(inner, command)
            else:
                found = self._printed_one(inner, command)
            if found is None:
                return None
            text += found
        return text

    def _printed_chain(self, shell: Shell, chain: Chain) -> str | None:
        text, result = "", True
        for operator, command in chain.parts:
            if (operator == "&&" and not result) or (operator == "||" and result):
                continue
            if isinstance(command, Simple) and command.words and self._is_test(shell, command):
                found = self.one(shell, command)
                if found is None:
                    return None
                result = found
                continue
            more = self._printed_one(shell, command)
            if more is None:
                return None
            text, result = text + more, True
        return text

    def _is_test(self, shell: Shell, command: Simple) -> bool:
        return self.fields(shell, command.words[:1])[:1] in (["["], ["[["], ["test"])

    def _printed_one(self, shell: Shell, command: Command) -> str | None:
        if not isinstance(command, Simple):
            return self._printed(shell, command.commands) if isinstance(command, Group) else None
        words = self.fields(shell, command.words)
        if not words:
            for assignment in command.assignments:
                self._assign(shell, assignment)
            return ""
        given = next((self.text(shell, one.body) for one in command.redirects if one.body is not None), None)
        text = printed(shell, words, given)
        if text is not None and words[0] in ("cd", "set", "unset", "shift"):
            self._run(shell, replace(command, redirects=()), words, None)
        return "" if _is_elsewhere(command.redirects) and text is not None else text


def _is_elsewhere(redirects: Sequence[Redirect]) -> bool:
    """Whether what a command prints goes into a file, or nowhere."""
    return any(redirect.operator in (">", ">>", ">|") for redirect in redirects)


def _own_words(word: str) -> list[str]:
    """The words of a whole command that is given as one, as `bash -c` takes it."""
    if TRAINER.search(word) and re.search(r"\s", word):
        try:
            return shlex.split(word)
        except ValueError:
            pass
    return [word]


def _value_of(option: str, words: Sequence[str]) -> str:
    for index, word in enumerate(words):
        if word.startswith(f"{option}="):
            return word.partition("=")[2]
        if word == option and index + 1 < len(words):
            return words[index + 1]
    return ""


def _in_file(error: ScriptError, path: Path) -> ScriptError:
    mistake = error.mistake
    found = mistake.found if mistake.key else f"{mistake.found} in {path.name}"
    return ScriptError(mistake.line, found, mistake.wanted, mistake.remedy)


def _read(path: Path) -> str:
    """The text of a script.

    Raises:
        ScriptError: there is none.
    """
    remedy = "give the path of a launch script"
    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise ScriptError(None, f"{path.stat().st_size:,} bytes", f"at most {LARGEST_BYTES:,}", remedy)
        return without_marks(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise ScriptError(None, f"a byte that is not UTF-8 at {error.start}", "text in UTF-8", remedy) from error
    except OSError as error:
        raise ScriptError(None, error.strerror or str(error), "a readable file", remedy) from error
