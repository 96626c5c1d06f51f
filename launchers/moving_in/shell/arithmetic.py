"""Bash's arithmetic on whole numbers."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, MutableMapping

LONGEST = 200
LARGEST = 2**63
STEP = re.compile(r"([A-Za-z_]\w*)\s*(\+\+|--)|(\+\+|--)\s*([A-Za-z_]\w*)")
ASSIGN = re.compile(r"([A-Za-z_]\w*)\s*([-+*/%]?)=(?!=)(.*)", re.DOTALL)
OPERATORS: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Mod: lambda a, b: a - b * int(a / b),  # of the sign of a, as in C
    ast.FloorDiv: lambda a, b: abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1),
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.BitXor: operator.xor,
    ast.Pow: lambda a, b: a**b if 0 <= b < 64 and abs(a) < 2**16 else _too_large(),
    ast.LShift: lambda a, b: a << b if 0 <= b < 64 else _too_large(),
    ast.RShift: lambda a, b: a >> b if 0 <= b < 64 else _too_large(),
}
COMPARISONS: dict[type[ast.cmpop], Callable[[int, int], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}


def calculate(text: str, variables: MutableMapping[str, int]) -> int:
    """The value of an expression; assignments in it change `variables`.

    Args:
        variables: those that are not there are 0.
    Raises:
        ValueError: not an expression of this subset, or a number too large.
    """
    text = text.strip()
    if len(text) > LONGEST:
        raise ValueError("too long")
    if match := STEP.fullmatch(text):
        name, step = match[1] or match[4], 1 if "+" in (match[2] or match[3]) else -1
        before = variables.get(name, 0)
        variables[name] = before + step
        return before if match[1] else before + step
    if match := ASSIGN.fullmatch(text):
        name, sign, rest = match.groups()
        value = calculate(rest, variables)
        variables[name] = calculate(f"{variables.get(name, 0)} {sign} ({value})", variables) if sign else value
        return variables[name]
    return _value(_parsed(text or "0"), variables)


def _parsed(text: str) -> ast.expr:
    text = text.replace("&&", " and ").replace("||", " or ")
    text = re.sub(r"!(?!=)", " not ", text)
    text = re.sub(r"(?<![\w.])0+(?=\d)", "", text.replace("/", "//"))
    try:
        return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, MemoryError, RecursionError) as error:
        raise ValueError(text) from error


def _value(node: ast.expr, variables: MutableMapping[str, int]) -> int:
    match node:
        case ast.Constant(value=int() as value) if not isinstance(value, bool):
            return _bounded(value)
        case ast.Name(id=name):
            return variables.get(name, 0)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
            try:
                return _bounded(OPERATORS[type(op)](_value(left, variables), _value(right, variables)))
            except (ZeroDivisionError, OverflowError) as error:
                raise ValueError("a division by 0, or a number too large") from error
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand, variables)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _value(operand, variables)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return int(not _value(operand, variables))
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in COMPARISONS:
            return int(COMPARISONS[type(op)](_value(left, variables), _value(right, variables)))
        case ast.BoolOp(op=ast.And(), values=values):
            return int(all(_value(one, variables) for one in values))
        case ast.BoolOp(op=ast.Or(), values=values):
            return int(any(_value(one, variables) for one in values))
    raise ValueError(ast.unparse(node))


def _bounded(value: int) -> int:
    return value if abs(value) < LARGEST else _too_large()


def _too_large() -> int:
    raise ValueError("a number too large")
