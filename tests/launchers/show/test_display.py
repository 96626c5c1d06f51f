"""What the terminal says of a run: where it is, when it will end, what it has made; and that it learns nothing."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console, Group

from common.duration import in_short
from launchers.show.display import BAR_WIDTH, MOST_ROWS, Display, summary

BEGIN = {"event": "begin", "step": 0, "num_steps": 300}


def step(number: int, time: float, step_s: float = 10.0) -> dict[str, Any]:
    metrics = {"rollout/raw_reward": 0.25, "rollout/response_len/mean": 4095.9, "perf/step_time": step_s}
    return {"event": "step", "step": number, "time": time, "metrics": metrics}


def lines(*events: dict[str, Any], width: int = 80) -> list[str]:
    text = io.StringIO()
    Display(Console(file=text, width=width)).show(events)
    return text.getvalue().splitlines()


def said(ratios: list[float]) -> list[str]:
    steps = [{"event": "step", "step": i, "metrics": {"rollout/zero_std/ratio": x}} for i, x in enumerate(ratios)]
    return [line for line in lines(*steps) if "no group had a spread" in line]


@pytest.mark.parametrize(
    ("ratios", "times"),
    [([1.0] * 2, 0), ([1.0] * 9, 1), ([1.0, 1.0, 0.5] * 3, 0), ([1.0] * 3 + [0.9] + [1.0] * 3, 2)],
    ids=["two steps", "once", "never three in a row", "again"],
)
def test_steps_in_which_all_rewards_are_equal_are_told_once(ratios: list[float], times: int) -> None:
    assert len(said(ratios)) == times


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *[(0.4, "0 s"), (89, "89 s"), (90, "2 min"), (3569, "59 min"), (3570, "1 h 00"), (3900, "1 h 05")],
        *[(86369, "23 h 59"), (86400, "1 d 0 h"), (187200, "2 d 4 h")],
    ],
)
def test_what_is_left_has_two_figures(seconds: float, text: str) -> None:
    assert in_short(seconds) == text


def test_a_step_says_how_many_are_done_and_when_the_last_will_be() -> None:
    shown = lines(BEGIN, step(0, 100.0, 13.0), step(1, 110.0), step(2, 124.0), step(3, 134.0), step(4, 600.0))
    assert [line.partition("s  ETA ")[2] for line in shown[1:]] == ["1 h 05", "50 min", "59 min", "49 min", "59 min"]
    assert shown[1].endswith("step   0  1/300  reward 0.250  length 4095.9  13.0 s  ETA 1 h 05")


def test_the_pace_is_that_of_this_attempt_and_the_last_step_has_none_left() -> None:
    shown = lines({**BEGIN, "step": 298}, step(298, 50.0, 12.0), step(299, 60.0))
    assert "step 298  299/300  reward" in shown[1]
    assert shown[1].endswith("ETA 12 s")
    assert "300/300" in shown[2]
    assert "ETA" not in shown[2]


def test_no_line_of_a_step_is_longer_than_80_characters_nor_folded_in_a_pipe() -> None:
    many = {**BEGIN, "num_steps": 1000}
    (_, shown) = lines(many, step(938, 1.0, 1234.5), width=300)
    assert shown.endswith("s  ETA 20 h 55")
    assert len(shown) <= 80
    assert len(lines(many, step(938, 1.0), width=30)) == 2


def test_a_terminal_has_a_bar_on_one_line() -> None:
    display = Display(Console(file=io.StringIO(), width=40, force_terminal=True))
    display.show([BEGIN, step(74, 1.0), {"event": "phase", "phase": "rollout", "step": 75}])
    now = display._now()
    bar = "━" * (BAR_WIDTH // 4) + "─" * (BAR_WIDTH * 3 // 4)
    assert now.plain.startswith(f"step 75 of 300 · rollout · {bar}  25% · ")
    assert "ETA 38 min" in now.plain
    text = io.StringIO()
    Console(file=text, width=40).print(Group(now))
    assert len(text.getvalue().splitlines()) == 1


def table(*events: dict[str, Any]) -> str:
    text = io.StringIO()
    Console(file=text, width=80).print(summary(events))
    return text.getvalue()


def test_the_end_shows_the_last_steps_and_each_evaluation_as_a_row() -> None:
    rates = {"held_out": {"accuracy": 0.5, "pass@8": 0.75}, "other": {"accuracy": 0.25, "pass@8": 0.5}}
    evaluations = [{"event": "eval", "step": at, "results": rates} for at in (*range(0, 300, 30), 300)]
    text = table(BEGIN, *(step(number, float(number)) for number in range(300)), *evaluations)
    assert f"the last {MOST_ROWS} of 300 steps" in text
    firsts = [line.split()[0] for line in text.splitlines() if line.strip()]
    assert "280" in firsts
    assert "279" not in firsts
    assert "evaluation: share of answers with a reward above 0.5, the last 20 of 22" in text
    assert [line.split() for line in text.splitlines() if "held_out" in line][-1] == [
        "end",
        "held_out",
        "0.500",
        "0.750",
    ]
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text


def test_a_short_run_shows_all_it_has() -> None:
    text = table({**BEGIN, "num_steps": 1}, step(0, 1.0), {"event": "eval", "step": 1, "results": {"x": {"loss": 2.0}}})
    assert "the last" not in text
    assert "evaluation: mean loss of a token\n" in text


@pytest.mark.parametrize(
    ("rates", "line"),
    [
        ({"accuracy": 0.5, "reward": 0.5}, "evaluation of held before step 4: accuracy 0.500"),
        ({"accuracy": 0.5, "pass@2": 1.0, "reward": 0.7}, "accuracy 0.500  pass@2 1.000  reward 0.700"),
        ({"loss": 1.25}, "evaluation of held before step 4: loss 1.250"),
    ],
    ids=["rewards of 0 and 1", "other rewards", "loss"],
)
def test_an_evaluation_is_a_line_with_its_rates(rates: dict[str, float], line: str) -> None:
    text = io.StringIO()
    lengths = {"response_len": 12.0, "truncated_ratio": 0.25, "turns/mean": 1.5, "tool_calls/valid_ratio": 0.5}
    results = {"held": {**rates, **lengths}}
    Display(Console(file=text, width=120)).show([{"event": "eval", "step": 4, "results": results}])
    assert text.getvalue().rstrip().endswith(line)
