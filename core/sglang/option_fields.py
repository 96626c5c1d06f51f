"""SGLang's own options, read from the text of an installed package: nothing of it is imported.

Each is a field of `ServerArgs`, `name: A[type, help] = default`, in server_args.py and, in newer versions, in
arg_groups/fields/; lists of words that several share may stand in arg_groups/choices.py. What has another form is no
option of its command line, except where add_cli_args names its flag.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

JSON_PARSERS = {"json.loads", "json_list_type", "parse_cuda_graph_config_arg"}
OF, OR = " of ", "|"  # in an option as text
KINDS = {"bool": "switch", "int": "integer", "float": "number"}


@dataclass(frozen=True)
class Option:
    """One option.

    Attributes:
        kind: of its value: "switch" (there or not), "on_off" (a switch that has a --no- form), "integer", "number",
            "text", "scalar" (a number or text), "list" (several words), "json" (a mapping or list in one word).
        flag: on the command line; empty: its name with dashes.
        choices: words that its value is one of, or each of its words; empty: any.
    """

    kind: str
    flag: str = ""
    choices: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Option:
        """What `str` made."""
        head, _, choices = text.partition(OF)
        kind, _, flag = head.partition(" ")
        return cls(kind, flag, tuple(choices.split(OR)) if choices else ())

    def or_as(self, other: Option) -> Option:
        """What takes a choice of either."""
        both = self.choices and other.choices
        return replace(self, choices=tuple(sorted({*self.choices, *other.choices})) if both else ())

    def __str__(self) -> str:
        return f"{self.kind} {self.flag}".rstrip() + (OF + OR.join(self.choices) if self.choices else "")


def read_options(package: Path) -> dict[str, Option]:
    """All options by name, in alphabetical order.

    Args:
        package: the folder `sglang`.
    """
    server_args = package / "srt" / "server_args.py"
    trees = [ast.parse(path.read_bytes()) for path in (server_args, *_field_files(package))]
    choices = package / "srt" / "arg_groups" / "choices.py"
    named = [*trees, *([ast.parse(choices.read_bytes())] if choices.exists() else [])]
    by_hand, words = set(_flags_by_hand(trees[0])), Words(named)
    found = dict(option for tree in trees for option in _options(tree, by_hand, words))
    return dict(sorted(found.items()))


def _field_files(package: Path) -> list[Path]:
    return sorted((package / "srt" / "arg_groups" / "fields").glob("*.py"))


class Words:
    """Lists of words, as written in an annotation, or by the names that modules have for them."""

    def __init__(self, trees: Sequence[ast.Module]) -> None:
        """Know the names of these modules; one that stands for two things is not known."""
        given = [(one.targets[0], one.value) for tree in trees for one in tree.body if isinstance(one, ast.Assign)]
        named = [(target.id, value) for target, value in given if isinstance(target, ast.Name)]
        times = Counter(name for name, _ in named)
        self._named = {name: value for name, value in named if times[name] == 1}

    def of(self, node: ast.expr) -> tuple[str, ...]:
        """The words, sorted; empty: SGLang makes them as it runs."""
        return tuple(sorted(map(str, self._read(node) or ())))

    def _read(self, node: ast.expr) -> list[Any] | None:
        if isinstance(node, ast.Name) and node.id in self._named:
            return self._read(self._named[node.id])
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            left, right = self._read(node.left), self._read(node.right)
            return None if left is None or right is None else left + right
        try:
            return list(ast.literal_eval(node)) if isinstance(node, ast.List | ast.Tuple | ast.Set) else None
        except ValueError:
            return None


def _flags_by_hand(tree: ast.Module) -> Iterator[str]:
    """Names whose flag is added by a call of its own."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "add_argument":
            flags = [one.value for one in node.args if isinstance(one, ast.Constant) and isinstance(one.value, str)]
            yield from (flag.removeprefix("--").replace("-", "_") for flag in flags)


def _options(tree: ast.Module, by_hand: set[str], words: Words) -> Iterator[tuple[str, Option]]:
    for owner in tree.body:
        for field in owner.body if isinstance(owner, ast.ClassDef) else ():
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                option = _option(field.annotation, field.target.id in by_hand, words)
                if option is not None:
                    yield field.target.id, option


def _option(annotation: ast.expr, by_hand: bool, words: Words) -> Option | None:
    """None: it is not on the command line."""
    kind, keywords = annotation, {}
    if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) == "A":
        assert isinstance(annotation.slice, ast.Tuple)
        kind, *more = annotation.slice.elts
        keywords = {word.arg: word.value for call in more if isinstance(call, ast.Call) for word in call.keywords}
    elif not by_hand:
        return None
    if "no_cli" in keywords and not by_hand:
        return None
    flag, choices = keywords.get("cli_name"), keywords.get("choices")
    return Option(
        _kind(ast.unparse(kind), keywords),
        ast.literal_eval(flag) if flag is not None else "",
        words.of(choices) if choices is not None else (),
    )


def _kind(annotation: str, keywords: dict[str | None, ast.expr]) -> str:
    spelt = {name: ast.unparse(value) for name, value in keywords.items()}
    inner = annotation.removeprefix("Optional[").removesuffix("]") if annotation[:9] == "Optional[" else annotation
    if "action" in spelt:
        return "on_off" if "BooleanOptionalAction" in spelt["action"] else "list"
    if "type_parser" in spelt:
        return "json" if spelt["type_parser"] in JSON_PARSERS else "scalar"
    if spelt.get("nargs") in ("'*'", "'+'") or inner.startswith(("List[", "list[")):
        return "list"
    if inner.startswith("Literal["):
        inner = type(next(one for one in ast.literal_eval(inner[7:]) if one is not None)).__name__
    return KINDS.get(inner, "text")
