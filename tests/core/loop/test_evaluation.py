"""What an evaluation asks for, and when."""

from __future__ import annotations

from typing import Any

import pytest

from core.config.schema import EvalConfig, RolloutConfig
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


def evaluation(sets: dict[str, int], rollout: Any = None, **settings: Any) -> Evaluation:
    """An evaluation over sets with this number of rows each, in a run of ten steps."""
    sources = {
        name: PromptSource([Prompt(row, f"{name} {row}", (row + 1,), "x") for row in range(rows)], 0, True, 3)
        for name, rows in sets.items()
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
    assert rates == {name: {"accuracy": 0.25, "pass@4": 1.0} for name in "ab"}


@pytest.mark.parametrize(("given", "wanted"), [(None, 50), (20, 20)], ids=["as the rollout", "its own"])
def test_sampling_settings(given: int | None, wanted: int) -> None:
    rollout = Rollout()
    evaluation({"a": 2}, rollout, max_response_tokens=given, temperature=0.3, top_p=0.8, top_k=20).run(8, "step8")
    seed = sample_seed(5, "eval/a", 8, 1, 0)
    assert rollout.asked[0].sampling(1, 0) == SamplingParams(wanted, 0.3, 0.8, 20, stop_token_ids=(2, 9), seed=seed)
