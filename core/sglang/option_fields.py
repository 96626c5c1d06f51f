"""SGLang's own options, read from the text of an installed package: nothing of it is imported.

Each is a field of `ServerArgs`, `name: A[type, help] = default`, in server_args.py and, in newer versions, in
arg_groups/fields/. What has another form is no option of its command line, except where add_cli_args names its flag.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

JSON_PARSERS = {"json.loads", "json_list_type", "parse_cuda_graph_config_arg"}
KINDS = {"bool": "switch", "int": "integer", "float": "number"}


@dataclass(frozen=True)
class Option:
    """One option.

    Attributes:
        kind: of its value: "switch" (there or not), "on_off" (a switch that has a --no- form), "integer", "number",
            "text", "scalar" (a number or text), "list" (several words), "json" (a mapping or list in one word).
        flag: on the command line; empty: its name with dashes.
    """

    kind: str
    flag: str = ""

    @classmethod
    def parse(cls, text: str) -> Option:
        """What `str` made."""
        kind, _, flag = text.partition(" ")
        return cls(kind, flag)

    def __str__(self) -> str:
        return f"{self.kind} {self.flag}".rstrip()


def read_options(package: Path) -> dict[str, Option]:
    """All options by name, in alphabetical order.

    Args:
        package: the folder `sglang`.
    """
    server_args = package / "srt" / "server_args.py"
    trees = [ast.parse(path.read_bytes()) for path in (server_args, *_field_files(package))]
    by_hand = set(_flags_by_hand(trees[0]))
    found = dict(option for tree in trees for option in _options(tree, by_hand))
    return dict(sorted(found.items()))


def _field_files(package: Path) -> list[Path]:
    return sorted((package / "srt" / "arg_groups" / "fields").glob("*.py"))


def _flags_by_hand(tree: ast.Module) -> Iterator[str]:
    """Names whose flag is added by a call of its own."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "add_argument":
            flags = [one.value for one in node.args if isinstance(one, ast.Constant) and isinstance(one.value, str)]
            yield from (flag.removeprefix("--").replace("-", "_") for flag in flags)


def _options(tree: ast.Module, by_hand: set[str]) -> Iterator[tuple[str, Option]]:
    for owner in tree.body:
        for field in owner.body if isinstance(owner, ast.ClassDef) else ():
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                option = _option(field.annotation, field.target.id in by_hand)
                if option is not None:
                    yield field.target.id, option


def _option(annotation: ast.expr, by_hand: bool) -> Option | None:
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
    flag = keywords.get("cli_name")
    return Option(_kind(ast.unparse(kind), keywords), ast.literal_eval(flag) if flag is not None else "")


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
