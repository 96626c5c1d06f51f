"""What a function or class takes, read from its text: nothing of it is run."""

from __future__ import annotations

import ast
from dataclasses import dataclass


@dataclass(frozen=True)
class Signature:
    """What a definition takes, as far as its text shows.

    Attributes:
        places: names of its positional parameters, in order; `required` of all that have no default.
        methods: of a class; None: it is a function. `any_place`, `any_name`: it has *args, **kwargs, or a base class
            or decorator whose parameters are not known here.
    """

    places: tuple[str, ...]
    names: tuple[str, ...]
    required: frozenset[str]
    any_place: bool = False
    any_name: bool = False
    methods: tuple[str, ...] | None = None
    call: Signature | None = None

    @classmethod
    def of(cls, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> Signature:
        """The signature of a function, or of the making of an object with that of its call in `call`."""
        if not isinstance(node, ast.ClassDef):
            return _of_arguments(node.args, skip=0, unknown=bool(node.decorator_list))
        methods = {one.name: one for one in node.body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)}
        unknown = bool(node.bases)
        call = _of_arguments(methods["__call__"].args, skip=1, unknown=False) if "__call__" in methods else None
        if "__init__" in methods:
            made = _of_arguments(methods["__init__"].args, skip=1, unknown=False)
        elif node.decorator_list:  # a dataclass: its fields
            fields = [one for one in node.body if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)]
            names = tuple(one.target.id for one in fields if isinstance(one.target, ast.Name))
            needed = frozenset(
                one.target.id for one in fields if isinstance(one.target, ast.Name) and one.value is None
            )
            made = cls((), names, needed, any_name=unknown)
        else:
            made = cls((), (), frozenset(), any_name=unknown)
        return cls((), made.names, made.required, made.any_place, made.any_name or unknown, tuple(methods), call)


def _of_arguments(arguments: ast.arguments, skip: int, unknown: bool) -> Signature:
    positional = [one.arg for one in (*arguments.posonlyargs, *arguments.args)]
    with_default = len(arguments.defaults)
    required = set(positional[: len(positional) - with_default][skip:])
    keyword = [one.arg for one in arguments.kwonlyargs]
    required |= {name for name, value in zip(keyword, arguments.kw_defaults, strict=True) if value is None}
    named = [one.arg for one in arguments.args][max(0, skip - len(arguments.posonlyargs)) :]
    return Signature(
        places=tuple(positional[skip:]),
        names=(*named, *keyword),
        required=frozenset(required),
        any_place=arguments.vararg is not None or unknown,
        any_name=arguments.kwarg is not None or unknown,
    )
