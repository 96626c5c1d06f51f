"""Plain values come back as they were; whatever else the bytes say, nothing is run."""

from __future__ import annotations

import datetime as dt
import json
import math
import pickle
import threading
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.processes.plain import NotPlain, dump, load
from tests.support.hostile import Hostile

VALUES = [
    None,
    True,
    -3,
    2**70,
    0.1,
    1e-320,
    -math.inf,
    "größer \ud800 \x00 日本語",
    [],
    [1, [2.5, None]],
    {"a": {"b": [1]}},
    (1, (2, [3])),
    {1: "one", (2, 3): "pair", None: 0},
    {"!": "tuple", "v": [1]},
    {"!": 1},
    {1, 2},
    frozenset({"a"}),
    b"\x00\xff",
    dt.datetime(2024, 2, 29, 1, 2, 3, 4, tzinfo=dt.UTC),
    dt.date(2024, 2, 29),
    dt.time(1, 2),
    dt.timedelta(days=-1, microseconds=3),
    Decimal("1.10"),
    Path("a b/c"),
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_comes_back_with_its_type(value: Any) -> None:
    found = load(dump(value))
    assert found == value
    assert repr(found) == repr(value)
    assert dump([value]).isascii()


def test_not_a_number_comes_back() -> None:
    assert math.isnan(load(dump(math.nan)))


@pytest.mark.parametrize(
    ("value", "wanted"),
    [(np.float32(0.5), 0.5), (np.float64(0.1), 0.1), (np.int64(3), 3), (np.bool_(True), True), (np.str_("a"), "a"),
     (np.arange(4).reshape(2, 2), [[0, 1], [2, 3]])],
)  # fmt: skip
def test_numpy_comes_back_as_python(value: Any, wanted: Any) -> None:
    found = load(dump({"value": value}))["value"]
    assert found == wanted
    assert type(found) is type(wanted)


def test_what_does_not_travel_is_named() -> None:
    with pytest.raises(NotPlain, match=r"a _thread\.lock cannot be sent"):
        dump({"deep": [threading.Lock()]})
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(NotPlain, match="contains itself"):
        dump(loop)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"!": "os.system", "v": "true"}',
        b'{"!": "decimal", "v": "x"}',
        b'{"!": "bytes", "v": "###"}',
        b'{"!": "tuple"}',
        b'{"!": "set", "v": [[]]}',
        b'{"!": ["tuple"], "v": []}',
        b'{"!": "timedelta", "v": [1e300]}',
    ],
    ids=lambda data: repr(data[:30]),
)
def test_damaged_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(NotPlain):
        load(data)


def test_a_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    data = pickle.dumps(Hostile(tmp_path / "trace"))
    with pytest.raises(NotPlain):
        load(data)
    assert list(tmp_path.iterdir()) == []
    pickle.loads(data)  # the trap works
    assert (tmp_path / "trace").is_dir()


def test_rows_of_every_reasoning_gym_dataset_travel() -> None:
    """Their scorers tell tuples from lists and whole numbers from texts as keys."""
    import reasoning_gym
    from reasoning_gym.factory import DATASETS

    for name in sorted(set(DATASETS) - {"composite"}):
        entry = dict(reasoning_gym.create_dataset(name, size=1, seed=1)[0])
        assert load(dump(entry)) == entry, name
        assert json.loads(dump(entry)) is not None
