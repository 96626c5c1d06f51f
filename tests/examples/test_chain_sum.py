"""The chain_sum example: its reward and its curriculum."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from math import log
from pathlib import Path

import pytest
import yaml

from core.config.schema import RewardConfig
from core.python_path import load_function
from core.reward.sample import RewardInput
from core.reward.scorers import build_scorer

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "chain_sum"
RUN_FILE = yaml.safe_load((EXAMPLE.parent / "chain-sum.yaml").read_text())
OPTIONS = RUN_FILE["data"]["options"]
score = build_scorer(RewardConfig(type="python", path=f"{EXAMPLE / 'reward.py'}:score"))
curriculum = load_function(f"{EXAMPLE / 'curriculum.py'}:rows", "data.path")
ONE_OFF, TEN_OFF = (1 - log(1 + distance) / log(101) for distance in (1, 10))


@pytest.mark.parametrize(
    ("asked", "response", "wanted"),
    [
        ("38 + 45 - 17", "38 + 45 = 83, 83 - 17 = 66", 1.0),
        ("38 + 45 - 17", "66", 1.0),
        ("23 - 41", "23 - 41 = -18", 1.0),
        ("23 - 41", "23 - 41 = 18", 0.0),
        ("23 - 41", "23 - 41 = -18, -18 + 1 = -17", 0.0),
        ("23 - 41", "23 - 41 = -18 - 1", 0.0),
        ("23 + 41", "23 + 41 = 65", 0.2 * 0.5 * ONE_OFF),
        ("23 + 41", "23 + 41 = 74", 0.2 * (0.5 + 0.5 * TEN_OFF)),
        ("38 + 45 - 17", "38 + 45 = 83", 0.2 * 0.5),
        ("38 + 45 - 17", "38 + 45 = 93, 93 - 17 = 76", 0.2 * (0.5 + 0.5 * TEN_OFF + 1.0) / 2),
        ("38 + 45 - 17", "38 + 45 = 83 - 17 = 67", 0.0),
        ("38 + 45 - 17", "138 + 45 = 83, 83 - 17 = 60", 0.0),
        ("38 + 45 - 17", "The answer is 65.", 0.0),
        ("38 + 45 - 17", "", 0.0),
    ],
)
def test_reward(asked: str, response: str, wanted: float) -> None:
    prompt = f"... 1 + 2 =\n1 + 2 = 3\nState the final answer to the following arithmetic problem: {asked} =\n"
    assert score(RewardInput(prompt, response, str(eval(asked)))) == pytest.approx(wanted)


def test_a_prompt_without_a_sum_is_a_failure() -> None:
    with pytest.raises(ValueError, match="wanted a sum"):
        score(RewardInput("How are you?", "7", "8"))


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
