"""One whole run with a reward, a filter, an advantage, a loss and sinks from files outside the package.

A run is started once, as starting it takes most of the time; generation and schedules have runs of their own.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from core.trajectory import read_step, step_path
from tests.support.door_files import SINKS, example, write_file
from tests.support.tiny_models import EXPERTS
from tests.support.tiny_runs import ebbtide, events, write_run

pytestmark = pytest.mark.run
GAMMA = 0.5
REWARD = """
from ebbtide import RewardInput


def length(sample: RewardInput, most=40):
    share = min(len(sample.response_text), most) / most
    return {"share": share, "tokens": sample.num_response_tokens}
"""

FILTER = """
def keep(group):
    assert all(sample.reward == sample.reward_parts["share"] for sample in group)
    return group[0].row % 3 > 0 or "every third"
"""


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run of two steps through five doors, of a model whose engine tells of its experts."""
    folder = tmp_path_factory.mktemp("own")
    write_file(folder, REWARD, "reward_of_mine.py")
    write_file(folder, FILTER, "filter_of_mine.py")
    write_file(folder, SINKS, "sinks.py")
    write_file(folder, example("Advantage"), "discounted.py")
    write_file(folder, example("Loss"), "gspo.py")
    algorithm = {
        **{"advantage_estimator": "discounted.py:advantages", "advantage_options": {"gamma": GAMMA}},
        **{"loss": "gspo.py:Gspo", "loss_options": {"clip": 1e-4}, "loss_aggregation": "sample_mean"},
        "routing_replay": "engine",
    }
    run_file = write_run(
        folder,
        kind=EXPERTS,
        algorithm=algorithm,
        rollout={
            **{"num_rollout": 2, "over_sampling_batch_size": 8},
            **{"filter": "filter_of_mine.py:keep", "filter_rounds": 2},
            **{"carry_over_tokens": 3, "carry_over_steps": 1},
        },
        checkpoint={"save_hf": "off"},
        eval={"sets": {"held_out": {"path": "data.jsonl", "max_prompt_tokens": 64}}},
        logging={
            "sinks": ["sinks.py:Raises", "tensorboard", {"name": "sinks.py:Lines", "options": {"file": "told.jsonl"}}]
        },
    )
    text = run_file.read_text().replace("path: reward.py:reward\n", "key: share\n")
    run_file.write_text(text.replace("type: python", "type: reward_of_mine.py:length"))
    done = ebbtide("run", str(run_file), "--run-dir", str(folder / "out"))
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "out"


def test_a_users_function_rewards(run_dir: Path) -> None:
    for event in events(run_dir, "step"):
        assert event["metrics"]["rollout/failed_ratio"] == 0
        record = read_step(step_path(run_dir, event["step"]))
        texts = [text.replace("␀", "\0") for text in record.response_text]  # as HDF5 has it
        np.testing.assert_allclose(record.reward, [min(len(text), 40) / 40 for text in texts], rtol=1e-6)
        assert record.reward_parts is not None
        lengths = record.response_tokens.lengths
        np.testing.assert_array_equal(record.reward_parts["tokens"], lengths)
        assert event["metrics"]["rollout/reward/tokens"] == pytest.approx(lengths.mean())
        assert event["metrics"]["rollout/reward/share"] == event["metrics"]["rollout/raw_reward"]
    for event in events(run_dir, "eval"):
        rates = event["results"]["held_out"]
        assert rates["reward/tokens"] == pytest.approx(rates["response_len"])


def test_its_filter_chooses_the_groups_and_those_that_are_not_needed_are_carried_over(run_dir: Path) -> None:
    trained: list[int] = []
    for event in events(run_dir, "step"):
        record = read_step(step_path(run_dir, event["step"]))
        assert all(row % 3 for row in record.row)
        assert (len(record), event["metrics"]["rollout/filter/rejected_but_trained"]) == (16, 0)
        trained += record.row[::4].tolist()
    assert len(set(trained)) == len(trained) == 8
    first, second = (event["metrics"] for event in events(run_dir, "step"))
    assert first["rollout/carried/groups"] == second["rollout/carried/trained"] > 0
    older = [version == "step0" for version in record.weight_version]
    assert sum(older) == 4 * second["rollout/carried/trained"]
    lengths = record.response_tokens.lengths
    assert second["rollout/carried/tokens_ratio"] == pytest.approx(lengths[older].sum() / lengths.sum())
    assert (record.logprobs_old.values == record.logprobs_engine.values).all(), "off-policy: the old are the engine's"


def test_the_engines_experts_come_with_responses_that_are_carried_over(run_dir: Path) -> None:
    """The newest weights have read all of such a response; of one that was complete before they have read nothing."""
    first, second = events(run_dir, "step")
    assert second["metrics"]["rollout/carried/trained"] > 0
    for event in (first, second):
        record = read_step(step_path(run_dir, event["step"]))
        assert record.routing is not None
        fed = record.prompt_tokens.lengths + record.response_tokens.lengths - 1
        assert record.routing.lengths.tolist() == fed.tolist()
    agreement = [event["metrics"]["train/routing_agreement_first"] for event in (first, second)]
    assert agreement[0] == 1.0
    assert 0.5 < agreement[1] <= 1.0


def test_its_advantage_gives_each_token_its_own(run_dir: Path) -> None:
    for event in events(run_dir, "step"):
        record = read_step(step_path(run_dir, event["step"]))
        assert record.token_advantage is not None
        centred = record.reward - record.reward.mean()
        for found, value, length in zip(record.token_advantage, centred, record.response_tokens.lengths, strict=True):
            np.testing.assert_allclose(found, value * GAMMA ** np.arange(length)[::-1], rtol=1e-4, atol=1e-6)


def test_its_loss_trains_with_a_metric_of_its_own(run_dir: Path) -> None:
    metrics = [event["metrics"] for event in events(run_dir, "step")]
    assert all(np.isfinite(step["train/loss"]) for step in metrics)
    assert all(step["train/grad_norm"] > 0 for step in metrics)
    assert not any("train/pg_loss" in step for step in metrics)
    clipped = [step["train/sequence_clipfrac"] for step in metrics]
    assert len(clipped) == 2
    # of two optimiser steps the first has the policy that sampled; in later rollouts not all of it was sampled by that
    assert 0 < clipped[0] <= 0.5


def test_its_sink_is_told_and_one_that_raises_keeps_nobody_from_it(run_dir: Path) -> None:
    told = [json.loads(line) for line in (run_dir / "told.jsonl").read_text().splitlines()]
    evaluations = [["evaluation", event["step"], event["results"]] for event in events(run_dir, "eval")]
    steps = [["step", event["step"], event["metrics"]] for event in events(run_dir, "step")]
    shown = [line for line in told if line[0] == "samples"]
    others = [line for line in told if line[0] != "samples"]
    assert others == [["begin", "tiny", 0, 2, 1e-3], evaluations[0], *steps, evaluations[1], ["end"]]
    assert len(steps) == 2
    assert [told[told.index(line) - 1][:2] for line in shown] == [["step", 0], ["step", 1]]
    assert all(len(samples) == 2 for _, _, samples in shown)  # the best and the worst
    assert any((run_dir / "tensorboard").iterdir())
    log = (run_dir / "attempts" / "1" / "trainer-0.log").read_text()
    assert log.count("KeyError: 'no room for step 0'") == 1
    assert "no room for step 1" not in log
    assert log.count(f"{run_dir.parent}/sinks.py:Raises failed; the run goes on") == 1
