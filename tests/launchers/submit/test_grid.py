from __future__ import annotations

import pytest

from launchers.submit.grid import GridError, overrides, parse_grid, points


def test_every_combination_in_order() -> None:
    grid = parse_grid(["train.lr=1e-6,3e-6", "rollout.seed=1,2"])
    assert [overrides(point) for point in points(grid)] == [
        ["train.lr=1e-6", "rollout.seed=1"],
        ["train.lr=1e-6", "rollout.seed=2"],
        ["train.lr=3e-6", "rollout.seed=1"],
        ["train.lr=3e-6", "rollout.seed=2"],
    ]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("a=[1,2],[3]", ("[1,2]", "[3]")),
        ("a='x,y', z", ("'x,y'", "z")),
        ('a={b: [1, 2]},{b: "}"}', ("{b: [1, 2]}", '{b: "}"}')),
        ("a=b=c,d", ("b=c", "d")),
    ],
    ids=["lists", "quotes", "mappings", "equals"],
)
def test_commas_inside_a_value(text: str, values: tuple[str, ...]) -> None:
    assert parse_grid([text]) == {"a": values}


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["train.lr"], "--grid: found 'train.lr'; wanted KEY=VALUE,VALUE: write for example"),
        (["=1"], "--grid: found '=1'; wanted KEY=VALUE,VALUE"),
        (["a=1", "a=2"], "--grid a: found the key twice; wanted each key once: write all values in one --grid"),
        (["a=1,,2"], "--grid a: found an empty value in '1,,2'; wanted values between commas"),
        (["a="], "--grid a: found an empty value in ''"),
        (["a=1,2,1"], "--grid a: found 1 twice; wanted each value once"),
        (["a=[1,2"], "--grid a: found '[1,2'; wanted every bracket and quote closed: a bracket is open"),
        (["a='1"], "--grid a: found \"'1\"; wanted every bracket and quote closed: ' is open"),
    ],
)
def test_mistakes(texts: list[str], message: str) -> None:
    with pytest.raises(GridError) as caught:
        parse_grid(texts)
    assert message in str(caught.value)
