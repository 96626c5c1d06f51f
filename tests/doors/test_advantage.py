"""The door `algorithm.advantage_estimator`: a user's file brings one number per response token."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import modelcfg
from common.mistake import Wrong
from core.algorithm.batch import make_batch
from core.algorithm.estimate import OFFERS, build_advantages, estimate
from core.checks.needs import min_group_size
from core.config.sections.algorithm import AlgorithmConfig
from core.doors import ADVANTAGE, VALUES
from core.planner import plan_disk
from core.samples import Prompt, Sample, Status
from core.trajectory import StepRecord, step_path, write_step
from launchers.show.samples import show
from tests.support.door_files import example, said_of, write_file
from tests.support.plans import run

REWARDS = [1.0, 0.0, None, 0.5]
LENGTHS = [3, 1, 2, 0]
GAMMA = 0.5


def samples() -> list[Sample]:
    """Two groups of two; the third sample could not be scored, the fourth has no tokens."""
    made = []
    for place, (reward, length) in enumerate(zip(REWARDS, LENGTHS, strict=True)):
        logprobs = [-1.0 - place - token / 4 for token in range(length)]
        prompt = Prompt(row=place, text="p", tokens=(1,), label=None)
        one = Sample(place // 2, place % 2, prompt, list(range(length)), logprobs, Status.COMPLETED, "0", reward=reward)
        made.append(replace(one, loss_mask=[int(token < 2) for token in range(length)]))
    return made


def estimator(folder: Path, text: str, name: str = "f", **options: Any) -> Any:
    path = write_file(folder, text)
    return build_advantages(AlgorithmConfig(advantage_estimator=f"{path}:{name}", advantage_options=options))


def test_the_page_gives_each_token_its_own(tmp_path: Path) -> None:
    batch = make_batch(samples(), estimator(tmp_path, example("Advantage"), "advantages", gamma=GAMMA))
    assert batch.advantages == [[0.5 * GAMMA**2, 0.5 * GAMMA, 0.5], [-0.5], [0.0, 0.0], []]
    given = batch.train_samples()
    assert [one.advantage for one in given] == batch.advantages
    assert [one.loss_mask for one in given] == [[1, 1, 0], [1], [0, 0], []]


def test_an_estimator_gets_what_it_has_parameters_for(tmp_path: Path) -> None:
    assert (*OFFERS, VALUES) == ADVANTAGE.offers  # the last in the trainer alone
    text = """
        class f:
            def __init__(self, grpo_std_normalization, scale):
                self.scale = scale if grpo_std_normalization else 0

            def __call__(self, rewards, groups, valid, *, loss_mask, logprobs_engine):
                assert rewards[[0, 1, 3]].tolist() == [1.0, 0.0, 0.5] and rewards[2].isnan()
                assert (groups.tolist(), valid.tolist()) == ([0, 0, 1, 1], [True, True, False, True])
                return [self.scale * (a + b) for a, b in zip(logprobs_engine, loss_mask)]
    """
    found = estimate(estimator(tmp_path, text, scale=2.0), samples())
    assert found == [[0.0, -0.5, -3.0], [-2.0], [0.0, 0.0], []]


def test_one_number_per_sample_stays_one_number(tmp_path: Path) -> None:
    found = estimate(estimator(tmp_path, "def f(rewards, groups, valid): return rewards * 2"), samples())
    assert found == [2.0, 0.0, 0.0, 1.0]  # NaN of what could not be scored is not read


BOTH = "wanted a tensor [4], one number per sample, or 4 tensors, one number per response token"
GIVES = {
    "another length": ("return rewards[:3]", f"a tensor [3] from f of DIR; {BOTH}"),
    "a list of numbers": ("return rewards.tolist()", f"a list from f of DIR; {BOTH}"),
    "nothing": ("return None", f"a NoneType from f of DIR; {BOTH}"),
    "too few samples": ("return [rewards]", f"1 tensors from f of DIR; {BOTH}"),
    "a token too few": (
        "return [rewards.new_zeros(max(0, n - (i == 0))) for i, n in enumerate([3, 1, 2, 0])]",
        "a tensor [2] for sample 0 from f of DIR; wanted [3], one number per response token",
    ),
    "not finite": ("return rewards / rewards", "nan for sample 1 from f of DIR; wanted a finite advantage"),
    "a token not finite": (
        "return [rewards.new_full((n,), (0.0, float('inf'))[n == 1]) for n in (3, 1, 2, 0)]",
        "inf for sample 1 from f of DIR; wanted a finite advantage",
    ),
}


@pytest.mark.parametrize(("body", "said"), GIVES.values(), ids=GIVES)
def test_what_it_gives_is_held_to_what_it_must_be(body: str, said: str, tmp_path: Path) -> None:
    made = estimator(tmp_path, f"def f(rewards, groups, valid):\n    {body}\n")
    with pytest.raises(Wrong) as caught:
        estimate(made, samples())
    assert str(caught.value).replace(str(tmp_path / "mine.py"), "DIR").startswith(f"found {said}: ")


WANTED = "wanted a function (rewards, groups, valid) -> [B], or B tensors [T], or a class whose objects are called so"
CHECKED = {
    "fits": ("def f(rewards, groups, valid, lengths, loss_mask): ...", ""),
    "a class that fits": ("class f:\n    def __call__(self, rewards, groups, valid, lengths): ...", ""),
    "asks for what there is not": (
        "def f(rewards, groups, valid, answers): ...",
        "algorithm.advantage_options: found no answers; wanted all that mine.py:f needs: add answers",
    ),
    "takes values and does not say so": (
        "def f(rewards, groups, valid, values): ...",
        "algorithm.advantage_estimator: found needs_values False and a parameter values of DIR/mine.py:f; wanted "
        "needs_values = True with a parameter values, or neither: correct it",
    ),
    "takes values and says so": ("def f(rewards, groups, valid, values): ...\n\n\nf.needs_values = True", ""),
    "says that it needs values, and takes none": (
        "class f:\n    needs_values = True\n\n    def __call__(self, rewards, groups, valid): ...",
        "algorithm.advantage_estimator: found needs_values True and no parameter values of DIR/mine.py:f; wanted "
        "needs_values = True with a parameter values, or neither: correct it",
    ),
    "what it is given is no option": (
        "def f(rewards, groups, valid, lengths, gamma=0.5): ...",
        "algorithm.advantage_options: found the option lengths; wanted an option of DIR/mine.py:f: gamma: remove or "
        "correct it",
    ),
    "too few": (
        "def f(rewards): ...",
        f"algorithm.advantage_estimator: found f of DIR/mine.py with (rewards); {WANTED}: correct its parameters",
    ),
    "needs five": (
        "class f:\n    min_group_size = 5\n    def __call__(self, rewards, groups, valid): ...",
        "rollout.n_samples_per_prompt: found 4, too few for an advantage over the group; wanted at least 5 samples per "
        "prompt for advantage_estimator DIR/mine.py:f: set n_samples_per_prompt to 5 or more",
    ),
    "needs five, as a function": (
        "def f(rewards, groups, valid): ...\nf.min_group_size = 5",
        "rollout.n_samples_per_prompt: found 4, too few for an advantage over the group; wanted at least 5 samples per "
        "prompt for advantage_estimator DIR/mine.py:f: set n_samples_per_prompt to 5 or more",
    ),
    "a syntax error": (
        "def f(rewards:",
        "algorithm.advantage_estimator: found a syntax error in DIR/mine.py, line 1; wanted a Python file that can be "
        "imported: correct the file",
    ),
}


@pytest.mark.parametrize(("text", "said"), CHECKED.values(), ids=CHECKED)
def test_the_login_node_reads_the_file(text: str, said: str, tmp_path: Path) -> None:
    options = ["algorithm.advantage_options={lengths: 3}"] if "gamma" in text else []
    found = said_of(tmp_path, text, "algorithm.advantage_estimator=mine.py:f", *options)
    assert found.replace("DIR/mine.py:f needs", "mine.py:f needs") == said


def test_the_built_in_needs_two() -> None:
    assert min_group_size(AlgorithmConfig()) == 2
    assert min_group_size(AlgorithmConfig(advantage_estimator="nothing.py:f")) == 1


def test_inspect_shows_their_mean_and_their_range(tmp_path: Path) -> None:
    given = samples()
    record = StepRecord.from_samples(
        given,
        **{"step": 0, "run": "r", "model": "m", "dtype": "float32"},
        advantages=[[0.5, -0.25, 9.0], [-1.0], [0.0, 0.0], []],
        logprobs_old=[one.logprobs_engine for one in given],
    )
    write_step(step_path(tmp_path, 0), record)
    console = Console(width=160, file=io.StringIO(), record=True)
    console.print(show(tmp_path))
    text = console.export_text()
    assert "reward 1, advantage mean +0.125 (-0.25 to +9 over its tokens), completed" in text
    assert "reward 0, advantage mean -1 (-1 to -1 over its tokens), completed" in text


def test_the_disk_is_planned_for_them() -> None:
    """Four bytes for each token of the longest responses."""
    shape = modelcfg.load("qwen3-4b")
    built_in, own = run(), run(algorithm={"advantage_estimator": "mine.py:f"})
    rollout = own.rollout
    tokens = rollout.rollout_batch_size * rollout.n_samples_per_prompt * rollout.max_response_tokens
    assert plan_disk(own, shape, "cuda").step - plan_disk(built_in, shape, "cuda").step == 4 * tokens
