"""Plain values as JSON text and back: what travels between processes that must not unpickle each other's bytes.

    dump({"path": Path("a"), 1: (2, 3)})  ->  b'{"!": "dict", "v": [[...]]}'   # ASCII, lone surrogates included
    load(dump(value)) == value, types included

Plain are None, bool, int, float (NaN and infinities too), str, and list, dict, tuple, set, frozenset of plain values
(dict keys may be plain, too); bytes; date, time, datetime, timedelta, Decimal; numpy scalars and arrays of numbers,
which come back as Python's own numbers and lists; Path. JSON's own kinds are written as they are, any other as
{"!": kind, "v": JSON}. Reading builds these kinds and nothing else, whatever the bytes say.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path, PurePath
from typing import Any

TAG, VALUE = "!", "v"


class NotPlain(ValueError):
    """A value that does not travel, or bytes that are no plain value."""


def dump(value: Any) -> bytes:
    """JSON text of a plain value.

    Raises:
        NotPlain: naming the class that does not travel.
    """
    try:
        return json.dumps(_encode(value), separators=(",", ":")).encode("ascii")
    except RecursionError:
        raise NotPlain("the value is nested too deeply (or contains itself) to be sent to another process") from None


def load(data: bytes | str) -> Any:
    """The value that `dump` was given.

    Raises:
        NotPlain: the bytes are not what `dump` writes.
    """
    try:
        return _decode(json.loads(data))
    except NotPlain:
        raise
    except (ValueError, TypeError, LookupError, ArithmeticError, RecursionError) as error:
        raise NotPlain(f"{_shown(data)} is no plain value: {type(error).__name__}: {error}") from error


def _encode(value: Any) -> Any:
    if hasattr(value, "dtype") and hasattr(value, "tolist"):  # numpy, or a tensor: not imported for this
        return _encode(value.tolist())
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, list):
        return [_encode(item) for item in value]
    if isinstance(value, dict):
        return _encode_dict(value)
    for kind, (classes, encode, _) in KINDS.items():
        if isinstance(value, classes):
            return {TAG: kind, VALUE: encode(value)}
    raise NotPlain(
        f"a {type(value).__module__}.{type(value).__qualname__} cannot be sent to another process; wanted plain values "
        "(None, bool, int, float, str, bytes, dates, Decimal, and lists, tuples, sets and dicts of them)"
    )


def _encode_dict(value: dict[Any, Any]) -> Any:
    if all(isinstance(key, str) for key in value) and TAG not in value:
        return {str(key): _encode(item) for key, item in value.items()}
    return {TAG: "dict", VALUE: [[_encode(key), _encode(item)] for key, item in value.items()]}


def _decode(value: Any) -> Any:
    if isinstance(value, list):
        return [_decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    if TAG not in value:
        return {key: _decode(item) for key, item in value.items()}
    kind = value[TAG]
    if kind == "dict":
        return {_decode(key): _decode(item) for key, item in value[VALUE]}
    if kind not in KINDS:
        raise NotPlain(f"unknown kind {kind!r}; wanted dict, {', '.join(KINDS)}")
    return KINDS[kind][2](value[VALUE])


def _encode_items(items: Any) -> list[Any]:
    return [_encode(item) for item in items]


def _decode_items(items: list[Any]) -> list[Any]:
    return [_decode(item) for item in items]


Kind = tuple[tuple[type, ...], Callable[[Any], Any], Callable[[Any], Any]]  # classes, to JSON, from JSON
KINDS: dict[str, Kind] = {
    "tuple": ((tuple,), _encode_items, lambda items: tuple(_decode_items(items))),
    "set": ((set,), _encode_items, lambda items: set(_decode_items(items))),
    "frozenset": ((frozenset,), _encode_items, lambda items: frozenset(_decode_items(items))),
    "bytes": (
        (bytes, bytearray),
        lambda b: base64.b64encode(b).decode(),
        lambda text: base64.b64decode(text, None, True),
    ),
    "datetime": ((dt.datetime,), dt.datetime.isoformat, dt.datetime.fromisoformat),  # before date, its base class
    "date": ((dt.date,), dt.date.isoformat, dt.date.fromisoformat),
    "time": ((dt.time,), dt.time.isoformat, dt.time.fromisoformat),
    "timedelta": (
        (dt.timedelta,),
        lambda delta: [delta.days, delta.seconds, delta.microseconds],
        lambda parts: dt.timedelta(*parts),
    ),
    "decimal": ((Decimal,), str, Decimal),
    "path": ((PurePath,), str, Path),
}


def _shown(data: bytes | str) -> str:
    text = repr(data[:80])
    return text if len(data) <= 80 else f"{text}... ({len(data)} bytes)"
