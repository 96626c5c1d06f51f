"""Tools of the model: what a chat template is told of a Python function, read from its text; nothing of it is run.

    def add(a: int, b: int = 0) -> int:             {"type": "function", "function": {
        '''Add two numbers.                             "name": "add", "description": "Add two numbers.",
                                                        "parameters": {"type": "object", "properties": {
        Args:                                               "a": {"type": "integer", "description": "the first"},
            a: the first                                    "b": {"type": "integer"}},
        '''                                                 "required": ["a"]}}}

So every rank and the login node know the tools, and a user's code stays in the processes made for it.
Source: the form is OpenAI's, the rules are those of transformers' `get_json_schema`. Differs: descriptions of arguments
may be left out, there are no choices within a description (`Literal` says them), and what comes back is not described.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from typing import Any

from common.mistake import Mistake, Wrong
from core.checks.function import definition, python_function
from core.plugins import split_function

Schema = dict[str, Any]
Function = ast.FunctionDef | ast.AsyncFunctionDef
BASIC = {"int": "integer", "float": "number", "str": "string", "bool": "boolean", "list": "array", "dict": "object"}
TYPES = "int, float, str, bool, list[...], dict[str, ...], Literal[...], a union of these, or None"
SECTION = re.compile(r"^(Args|Arguments|Returns|Raises|Yields|Example|Examples):\s*$")
ENTRY = re.compile(r"^(\w+)(?:\s*\([^)]*\))?:\s*(.*)$")


def tool_schemas(paths: Sequence[str]) -> list[Schema]:
    """What a chat template is told of each tool.

    Args:
        paths: `rollout.tools`.
    Raises:
        Wrong: one is no plain, typed function with a docstring, or two have one name.
    """
    schemas = [tool_schema(path) for path in paths]
    names = [schema["function"]["name"] for schema in schemas]
    for name in names:
        if names.count(name) > 1:
            raise Wrong(f"two tools named {name}", "a name for each, as the model calls them by it", "rename one")
    return schemas


def tool_schema(path: str) -> Schema:
    """What a chat template is told of one function.

    Raises:
        Wrong: there is no such function, or it is not plain and typed.
    """
    mistakes: list[Mistake] = list(python_function("rollout.tools", path))
    if mistakes:
        raise Wrong(mistakes[0].found, mistakes[0].wanted, mistakes[0].remedy)
    found = definition(path)
    file, name = split_function(path)
    if found is None or isinstance(found, ast.ClassDef):
        what = f"{name} of {file}, which is not defined there by def"
        raise Wrong(what, "a plain function at the top level of that file", "define it there")
    where = f"{name} in line {found.lineno} of {file}"
    description, entries = _docstring(ast.get_docstring(found) or "")
    if not description:
        raise Wrong(f"no docstring of {where}", "one, which tells the model what the tool is for", "write it")
    properties = {
        one.arg: _described(_typed(one, where), entries.get(one.arg, "")) for one in _parameters(found, where)
    }
    parameters: Schema = {"type": "object", "properties": properties}
    if required := [name for name in properties if name not in _with_default(found)]:
        parameters["required"] = required
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


def _parameters(function: Function, where: str) -> list[ast.arg]:
    arguments = function.args
    if arguments.vararg or arguments.kwarg or arguments.posonlyargs:
        found = f"{where} with ({ast.unparse(arguments)})"
        raise Wrong(found, "parameters that can be given by name, each with its own", "name them one by one")
    return [*arguments.args, *arguments.kwonlyargs]


def _with_default(function: Function) -> set[str]:
    arguments = function.args
    places = arguments.args[len(arguments.args) - len(arguments.defaults) :]
    pairs = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    return {one.arg for one in places} | {one.arg for one, value in pairs if value is not None}


def _described(schema: Schema, description: str) -> Schema:
    return {**schema, "description": description} if description else schema


def _typed(parameter: ast.arg, where: str) -> Schema:
    if parameter.annotation is None:
        raise Wrong(f"no type of {parameter.arg} of {where}", TYPES, f"write {parameter.arg}: int, or what it is")
    schema = _of(parameter.annotation)
    if schema is None:
        found = f"the type {ast.unparse(parameter.annotation)} of {parameter.arg} of {where}"
        raise Wrong(found, TYPES, "use one that JSON has")
    return schema


def _of(annotation: ast.expr) -> Schema | None:
    """The JSON type of an annotation; None: it has none."""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        return _of(ast.parse(annotation.value, mode="eval").body)
    if isinstance(annotation, ast.BinOp) and isinstance(annotation.op, ast.BitOr):
        return _union(list(_members(annotation)))
    if isinstance(annotation, ast.Subscript):
        inside = annotation.slice
        return _subscripted(_name(annotation.value), inside.elts if isinstance(inside, ast.Tuple) else [inside])
    name = _name(annotation)
    if name == "Any":
        return {}
    return {"type": BASIC[name]} if name in BASIC else None


def _subscripted(name: str, inside: Sequence[ast.expr]) -> Schema | None:
    if name == "Literal":
        return _literal(inside)
    if name in ("Optional", "Union"):
        return _union([*inside, *([ast.Constant(None)] if name == "Optional" else [])])
    below = _of(inside[-1])
    if below is None:
        return None
    if name in ("list", "List") and len(inside) == 1:
        return {"type": "array", "items": below}
    if name in ("dict", "Dict") and len(inside) == 2 and _name(inside[0]) == "str":
        return {"type": "object", "additionalProperties": below}
    return None


def _literal(values: Sequence[ast.expr]) -> Schema | None:
    found = [one.value for one in values if isinstance(one, ast.Constant) and type(one.value).__name__ in BASIC]
    if len(found) < len(values):
        return None
    types = list(dict.fromkeys(BASIC[type(one).__name__] for one in found))
    return {"type": types[0] if len(types) == 1 else types, "enum": found}


def _union(members: Sequence[ast.expr]) -> Schema | None:
    others = [one for one in members if not (isinstance(one, ast.Constant) and one.value is None)]
    schemas = [_of(one) for one in others]
    known = [one for one in schemas if one is not None]
    if not known or len(known) < len(schemas):
        return None
    if len(known) == 1:
        made = known[0]
    elif all(set(one) == {"type"} for one in known):
        made = {"type": sorted(one["type"] for one in known)}
    else:
        made = {"anyOf": known}
    return made if len(others) == len(members) else {**made, "nullable": True}


def _members(union: ast.expr) -> Iterator[ast.expr]:
    if isinstance(union, ast.BinOp):
        yield from (*_members(union.left), *_members(union.right))
    else:
        yield union


def _name(node: ast.expr) -> str:
    """`Literal` of `typing.Literal`."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _docstring(text: str) -> tuple[str, dict[str, str]]:
    """What the function is for, and what it says of each argument, in Google's form."""
    section, description, entries = "", list[str](), list[str]()
    for line in text.splitlines():
        if SECTION.match(line):
            section = line.partition(":")[0]
        elif not section:
            description.append(line)
        elif section.startswith("Arg") and line.strip():
            entries.append(line)
    return "\n".join(description).strip(), dict(_entries(entries))


def _entries(lines: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Lines that begin as far left as the first begin an entry; the others go on with it."""
    margin = min((len(line) - len(line.lstrip()) for line in lines), default=0)
    name, said = "", list[str]()
    for line in lines:
        match = ENTRY.match(line[margin:])
        if match:
            if name:
                yield name, " ".join(said).strip()
            name, said = match[1], [match[2]]
        else:
            said.append(line.strip())
    if name:
        yield name, " ".join(said).strip()
