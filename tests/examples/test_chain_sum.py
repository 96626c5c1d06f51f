"""The chain_sum example: its reward and its curriculum."""

from __future__ import annotations

import re
from collections import Counter
from itertools import islice
from pathlib import Path

import jinja2
import pytest
import yaml

from core.config.sections.reward import RewardConfig
from core.plugins import load_function
from core.reward.sample import RewardInput
from core.reward.scorers import build_scorer

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "chain_sum"
RUN_FILE = yaml.safe_load((EXAMPLE.parent / "chain-sum.yaml").read_text())
OPTIONS = RUN_FILE["data"]["options"]
score = build_scorer(RewardConfig(type="python", path=f"{EXAMPLE / 'reward.py'}:score"))
curriculum = load_function(f"{EXAMPLE / 'curriculum.py'}:rows", "data.path")


WORKED = "64 = 60 + 4, 27 = 20 + 7. Tens: 60 - 20 = 40. Ones: 4 - 7 = -(7 - 4) = -3. Sum: 40 - 3 = 37"
SPLIT = "23 = 20 + 3, 41 = 40 + 1"


def asking(sum_: str, response: str, **row: bool) -> RewardInput:
    prompt = f"... 1 + 2 =\n1 + 2 = 3\nState the final answer to the following arithmetic problem: {sum_} =\n"
    return RewardInput(prompt, response, str(eval(sum_)), row)


@pytest.mark.parametrize(
    ("asked", "response", "wanted"),
    [
        ("23 - 8", "23 = 20 + 3, 8 = 0 + 8. Tens: 20 - 0 = 20. Ones: 3 - 8 = -(8 - 3) = -5. Sum: 20 - 5 = 15", 1.0),
        ("23 - 41", f"{SPLIT}. Tens: 20 - 40 = -(40 - 20) = -20. Ones: 3 - 1 = 2. Sum: -20 + 2 = -(20 - 2) = -18", 1.0),
        ("5 + 2 - 7", "5 + 2 = 7, 7 - 7 = 0", 1.0),
        ("4 - 9 + 8", "4 - 9 = -(9 - 4) = -5, -5 + 8 = 8 - 5 = 3", 1.0),
        ("9 - 0", "9 - 0 = 9", 1.0),
        ("5 - 0 + 8", "5 - 0 = 5, 5 + 8 = 13", 1.0),
        ("5 - 0 + 8", "5 + 0 = 5, 5 + 8 = 13", 0.0),
        ("4 - 9 + 5", "4 - 9 = -(9 - 4) = -5, -5 + 5 = 5 - 5 = 0", 1.0),
        ("2 - 7 - 4", "2 - 7 = -(7 - 2) = -5, -5 - 4 = -(5 + 4) = -9", 1.0),
        ("3 - 9 + 2", "3 - 9 = -(9 - 3) = -6, -6 + 2 = -(6 - 2) = -4", 1.0),
        ("4 - 9 + 8", "4 - 9 = -(9 - 4) = -6, -6 + 8 = 8 - 6 = 2", 0.5 * 5.5 / 6),
        ("4 - 9 + 8", "4 - 9 = -(9 - 4) = -6, -6 + 8 = 2", 0.5 * 3 / 6),
        ("4 - 9 + 8", "4 - 9 = -(9 - 4) = -5", 0.5 * 3 / 6),
        ("4 - 9 + 8", "4 - 9 = -(9 - 4) = -5, -5 + 8 = 8 - 5 = 3, 3 + 1 = 4", 0.5 * 5 / 6),
        ("4 - 9 + 8", "4 - 9 = -5, -5 + 8 = 3", 0.0),
        ("4 - 9 + 8", "3", 0.0),
        ("64 - 27", WORKED, 1.0),
        ("64 - 27", WORKED.replace("= -3. Sum: 40 - 3 = 37", "= -2. Sum: 40 - 2 = 38"), 0.5 * 8.5 / 9),
        ("64 - 27", WORKED.replace("Ones: 4 - 7", "Ones: 7 - 4"), 0.5 * 5 / 9),
        ("64 - 27", WORKED.partition(" Sum")[0], 0.5 * 8 / 9),
        ("64 - 27", "64 = 61 + 4", 0.5 * 1.5 / 9),
        ("64 - 27", "64 - 27 = 37", 0.0),
        ("64 - 27", "", 0.0),
    ],
)
def test_reward(asked: str, response: str, wanted: float) -> None:
    assert score(asking(asked, response, worked=True)) == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("response", "wanted"), [(WORKED, 1.0), ("It is 37.", 1.0), ("37, I think, or 38", 0.0), ("", 0)]
)
def test_evaluation_counts_the_last_number_alone(response: str, wanted: float) -> None:
    assert score(asking("64 - 27", response)) == wanted


@pytest.mark.parametrize("sum_", ["64 - 27", "7 + 5"])
def test_worked_examples_of_the_prompt_earn_all(sum_: str) -> None:
    shown = re.findall(r"\('(\d[^']*)', '([^']+)'\)", (EXAMPLE / "steps.jinja").read_text())
    assert sum_ in dict(shown)
    assert all(score(asking(asked, steps, worked=True)) == 1.0 for asked, steps in shown)


@pytest.mark.parametrize(
    ("begun", "response", "wanted"),
    [
        ("4 - 9 = -(9", " - 4) = -5", 1.0),
        ("4 - 9 = -(9", " - 4) = -6", 0.5 * 1.5 / 2),
        ("4 - 9 = -(9 - 4", ") = -5", 1.0),
        ("4 - 9 = -(9 - 4", ") = -5, -5", 0.0),
        ("4 - 9 = -(9 - 4", "", 0.0),
        ("4 - 9 = -(9 - 4", "0) = -31", 0.5 * 0.5),  # goes on with a number of the beginning
    ],
)
def test_of_an_answer_that_is_begun_the_rest_is_judged(begun: str, response: str, wanted: float) -> None:
    asked = asking("4 - 9", response)
    row = {"worked": True, "begun": begun}
    assert score(RewardInput(asked.prompt_text + begun, response, "-5", row)) == pytest.approx(wanted)


def test_beginnings_are_the_right_answer_up_to_each_number_but_the_last() -> None:
    beginnings = load_function(f"{EXAMPLE / 'reward.py'}:beginnings", "reward.path")
    assert beginnings("... 4 - 9 =") == ["4 - 9 = -(9", "4 - 9 = -(9 - 4"]
    assert beginnings("... 8 - 3 =") == []
    found = beginnings("... 64 - 27 =")
    assert (len(found), found[0], found[-1]) == (8, "64 = 60", WORKED.partition(". Sum")[0])


def test_a_prompt_without_a_sum_is_a_failure() -> None:
    with pytest.raises(ValueError, match="wanted a sum"):
        score(RewardInput("How are you?", "7", "8", {"worked": True}))


@pytest.mark.parametrize(
    ("step", "wanted"),
    [
        (0, {"2x1": 1.0}),
        (50, {"2x1": 0.5, "2x2": 0.5}),
        (100, {"2x2": 1.0}),
        (299, {"2x2": 1.0}),
    ],
)
def test_mixes_change_evenly(step: int, wanted: dict[str, float]) -> None:
    mixes = [{"step": 0, "2x1": 1.0}, {"step": 100, "2x2": 1.0}]
    rows = list(curriculum(num_steps=300, prompts_per_step=400, mixes=mixes))
    found = Counter(f"{row['terms']}x{row['digits']}" for row in rows[400 * step : 400 * (step + 1)])
    assert {kind: count / 400 for kind, count in found.items()} == pytest.approx(wanted, abs=0.1)


def test_curriculum_repeats_itself_and_another_seed_gives_another_order() -> None:
    first, again, other = (list(islice(curriculum(**{**OPTIONS, "seed": seed}), 64)) for seed in (3, 3, 4))
    assert first == again != other
    assert all(row["worked"] for row in first)


def test_a_share_of_the_rows_has_a_begun_answer_that_the_template_writes_last() -> None:
    mixes = [{"step": 0, "3x1": 0.5, "2x2": 0.5}]
    rows = list(curriculum(num_steps=1, prompts_per_step=400, mixes=mixes, begun=0.25))
    begun = [row for row in rows if "begun" in row]
    assert len(begun) == pytest.approx(100, abs=30)
    template = (EXAMPLE / "steps.jinja").read_text()
    for row in begun:
        text = jinja2.Template(template).render(messages=row["question"], add_generation_prompt=True)
        assert text.endswith(f"{row['question'][0]['content']}<|im_end|>\n<|im_start|>assistant\n{row['begun']}")


@pytest.mark.parametrize(
    ("mixes", "message"),
    [
        ([{"step": 0, "4x1": 1.0}], r"\['4x1'\]; wanted some of \['2x1'"),
        ([{"step": 5, "2x1": 1.0}], "wanted the first one for step 0"),
        ([], "wanted the first one for step 0"),
    ],
)
def test_curriculum_refuses(mixes: list[dict[str, float]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        list(curriculum(num_steps=1, prompts_per_step=1, mixes=mixes))


def test_the_run_file_asks_for_as_many_rows_as_the_curriculum_gives() -> None:
    rollout = RUN_FILE["rollout"]
    assert OPTIONS["num_steps"] == rollout["num_rollout"]
    assert OPTIONS["prompts_per_step"] == rollout["rollout_batch_size"]
    assert not RUN_FILE["data"]["shuffle"]
