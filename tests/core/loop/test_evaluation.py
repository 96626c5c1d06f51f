"""What an evaluation asks for, and when."""

from __future__ import annotations

from typing import Any

import pytest

from core.config.sections.eval import EvalConfig, EvalSet
from core.config.sections.rollout import RolloutConfig
from core.data import PromptSource
from core.loop.evaluation import Evaluation
from core.rollout.request import Generated, Request
from core.rollout.seeds import sample_seed
from core.samples import Prompt, Sample, SamplingParams, Status


class Rollout:
    """Notes what it is asked; the first sample of a group is right."""

    def __init__(self) -> None:
        self.asked: list[Request] = []

    def generate(self, request: Request) -> Generated:
        self.asked.append(request)
        return Generated(list(request.prompts))

    def settle(self, made: Generated) -> list[Sample]:
        pairs = [(g, i) for g in range(len(made.prompts)) for i in range(self.asked[-1].num_samples)]
        return [
            Sample(g, i, made.prompts[g], [1], [0.0], Status.COMPLETED, "v", reward=float(i == 0)) for g, i in pairs
        ]


def evaluation(sizes: dict[str, int], rollout: Any = None, **settings: Any) -> Evaluation:
    """An evaluation over sets with this number of rows each, in a run of ten steps."""
    sources = {
        name: PromptSource([Prompt(row, f"{name} {row}", (row + 1,), "x") for row in range(rows)], 0, True, 3)
        for name, rows in sizes.items()
    }
    run = RolloutConfig(num_rollout=10, rollout_batch_size=2, max_response_tokens=50, temperature=0.7, seed=5)
    return Evaluation(EvalConfig(**settings), run, sources, rollout, stop_token_ids=(2, 9))


@pytest.mark.parametrize(
    ("interval", "sets", "wanted"),
    [(4, {"a": 1}, [0, 4, 8, 10]), (5, {"a": 1}, [0, 5, 10]), (0, {"a": 1}, [0, 10]), (4, {}, [])],
    ids=["interval", "interval meets the end", "ends only", "no sets"],
)
def test_due(interval: int, sets: dict[str, int], wanted: list[int]) -> None:
    assert [step for step in range(11) if evaluation(sets, interval=interval).due(step)] == wanted


def test_every_row_of_every_set_is_asked_once_under_a_key_of_its_own() -> None:
    rollout = Rollout()
    rates = evaluation({"a": 5, "b": 3}, rollout, n_samples_per_prompt=4).run(8, "step8")
    assert [request.key for request in rollout.asked] == ["eval/a/8", "eval/b/8"]
    assert [sorted(p.row for p in request.prompts) for request in rollout.asked] == [list(range(5)), list(range(3))]
    assert [(request.weight_version, request.num_samples) for request in rollout.asked] == [("step8", 4)] * 2
    found = {name: (one["accuracy"], one["pass@4"]) for name, one in rates.items()}
    assert found == {"a": (0.25, 1.0), "b": (0.25, 1.0)}


@pytest.mark.parametrize(("given", "wanted"), [(None, 50), (20, 20)], ids=["as the rollout", "its own"])
def test_sampling_settings(given: int | None, wanted: int) -> None:
    rollout = Rollout()
    evaluation({"a": 2}, rollout, max_response_tokens=given, temperature=0.3, top_p=0.8, top_k=20).run(8, "step8")
    seed = sample_seed(5, "eval/a", 8, 1, 0)
    assert rollout.asked[0].sampling(1, 0) == SamplingParams(wanted, 0.3, 0.8, 20, stop_token_ids=(2, 9), seed=seed)


SETS = {"a": EvalSet(interval=2, temperature=1.0, n_samples_per_prompt=2, max_response_tokens=9), "b": EvalSet(top_k=7)}


def test_each_set_has_its_interval_and_what_it_does_not_say_is_as_in_eval() -> None:
    rollout = Rollout()
    both = evaluation({"a": 1, "b": 1}, rollout, sets=SETS, interval=5, temperature=0.5, skip_first=True)
    assert [step for step in range(11) if both.due(step)] == [2, 4, 5, 6, 8, 10]
    asked = {step: (len(rollout.asked), both.run(step, "v"), len(rollout.asked)) for step in (2, 5, 10)}
    assert [list(rates) for _, rates, _ in asked.values()] == [["a"], ["b"], ["a", "b"]]
    a, b = rollout.asked[0], rollout.asked[1]
    assert (a.num_samples, b.num_samples) == (2, 1)
    shared = {"stop_token_ids": (2, 9)}
    assert a.sampling(0, 1) == SamplingParams(9, 1.0, **shared, seed=sample_seed(5, "eval/a", 2, 0, 1))
    assert b.sampling(0, 0) == SamplingParams(50, 0.5, top_k=7, **shared, seed=sample_seed(5, "eval/b", 5, 0, 0))


def test_samples_are_kept_with_the_rates_of_their_set() -> None:
    kept: list[Any] = []
    one = evaluation({"a": 2}, Rollout(), n_samples_per_prompt=3, temperature=1.0)
    one._keep = lambda name, step, samples, rates: kept.append((name, step, len(samples), rates))
    rates = one.run(4, "v")
    assert kept == [("a", 4, 6, rates["a"])]


def test_answers_are_looked_for_as_each_set_is_scored() -> None:
    one = evaluation({"a": 1, "b": 1}, Rollout(), n_samples_per_prompt=2, temperature=1.0, majority=True)
    one._answers_of = {"a": lambda _text: "7", "b": None}
    rates = one.run(4, "v")
    assert {name: [key for key in found if key.startswith("maj@")] for name, found in rates.items()} == {
        "a": ["maj@2"],
        "b": [],
    }
