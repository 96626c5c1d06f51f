"""Schedules of half a run: an evaluation alone, and updates of what another run has stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from common.mistake import Wrong
from core.algorithm.advantages.grpo import Grpo
from core.algorithm.batch import make_batch
from core.loop.evaluate import Evaluate
from core.loop.missing import Missing, NothingToSave
from core.loop.replay import Replay
from core.loop.state import LoopState
from core.samples import Sample, TrainSample
from core.trajectory import StepRecord, read_step, step_path, stored_samples, was_on_policy, write_step
from tests.support.good_run import write_run
from tests.support.loop_fakes import Fakes
from tests.support.step_samples import make_samples


def store(run: Path, step: int, *, on_policy: bool = True) -> list[TrainSample]:
    """A step as a run stores it; what its update was given."""
    samples = make_samples(3, 4, seed=step)
    batch = make_batch(samples, Grpo(True), on_policy=on_policy)
    old = [[value - 0.5 * on_policy for value in one.logprobs_engine] for one in samples]
    record = StepRecord.from_samples(
        samples, advantages=batch.advantages, logprobs_old=old, step=step, run="r", model="m", dtype="float32"
    )
    write_step(step_path(run, step), record)
    return batch.train_samples()


def replayed(run: Path, state: LoopState | None = None, **options: Any) -> Fakes:
    fakes = Fakes(state)
    if not (run / "run.yaml").exists():
        write_run(run)
    fakes.parts.advantages = Grpo(True)
    fakes.parts.trainer.load = lambda folder: fakes.calls.append(f"load {folder.relative_to(run)}")  # type: ignore
    fakes.parts.journal.stepped = lambda step, *_: fakes.calls.append(f"stepped {step}")  # type: ignore
    assert Replay(str(run), **options)(fakes.parts)
    return fakes


@pytest.mark.parametrize("on_policy", [True, False], ids=["on-policy", "of older weights"])
def test_the_update_is_given_what_it_was_given_before(tmp_path: Path, on_policy: bool) -> None:
    """To the 32 bits of a float that the store keeps, and the trainer's tensors have."""
    wanted = store(tmp_path, 0, on_policy=on_policy)
    assert was_on_policy(read_step(step_path(tmp_path, 0))) == on_policy
    (found,) = replayed(tmp_path, begin=0, last=0).updated
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert (one.group, one.task, one.loss_mask) == (other.group, other.task, other.loss_mask)
        assert list(one.prompt_tokens) == list(other.prompt_tokens)
        assert one.response_tokens == other.response_tokens
        assert one.advantage == other.advantage
        assert one.logprobs_engine == pytest.approx(other.logprobs_engine, rel=1e-7)
        assert (one.logprobs_old is None) == on_policy
    assert not all(any(one.loss_mask) for one in found), "failed samples are masked out"


def test_where_the_run_took_the_engines_log_probs_for_the_old_ones_the_trainer_does_so_again(tmp_path: Path) -> None:
    """Its own setting says so, which another one of the replay may replace."""
    store(tmp_path, 0, on_policy=False)
    run_file = write_run(tmp_path)
    text = run_file.read_text().replace("algorithm:\n", "algorithm:\n  old_logprobs: engine\n")
    run_file.write_text(text)
    (found,) = replayed(tmp_path, begin=0, last=0).updated
    assert all(one.logprobs_old is None for one in found)


def test_stored_samples_are_those_of_the_step(tmp_path: Path) -> None:
    store(tmp_path, 2)
    samples = make_samples(3, 4, seed=2)
    for one, other in zip(stored_samples(read_step(step_path(tmp_path, 2))), samples, strict=True):
        kept = ("group", "index", "reward", "failure", "status", "response_tokens", "task", "weight_version", "engine")
        assert [getattr(one, name) for name in kept] == [getattr(other, name) for name in kept]
        assert (one.prompt.row, one.prompt.label) == (other.prompt.row, other.prompt.label)
        assert list(one.turns) == list(other.turns)
    assert isinstance(samples[0], Sample)


def test_it_goes_on_from_the_checkpoint_through_the_steps_between(tmp_path: Path) -> None:
    for step in (2, 3):
        store(tmp_path, step)
    fakes = replayed(tmp_path, begin=2, last=3)
    assert fakes.calls == ["load checkpoints/step_000002/trainer", "update 12", "stepped 2", "update 12", "stepped 3"]


def test_it_keeps_a_checkpoint_and_goes_on_from_its_own(tmp_path: Path) -> None:
    store(tmp_path, 2)
    assert replayed(tmp_path, begin=2, last=1, keep=True).calls[-1] == "save 2, 0 prompts"
    assert replayed(tmp_path, LoopState(2), begin=1, last=2).calls == ["update 12", "stepped 2"]


def test_an_evaluation_is_of_the_step_that_the_model_is_from() -> None:
    fakes = Fakes()
    assert Evaluate(step=3)(fakes.parts)
    assert fakes.calls == ["push step3", "evaluate 3 step3", "evaluated 3"]
    assert fakes.names_of(3) == ["sync", "eval"]


def test_a_part_that_is_not_there_says_so() -> None:
    trainer = Missing("trainer", "placement.trainers is none", "set placement.trainers to megatron")
    with pytest.raises(Wrong, match=r"found a call of trainer\.update, where placement.trainers is none; wanted"):
        trainer.update([])
    NothingToSave().ensure(LoopState())
    assert not NothingToSave().due(4)
    with pytest.raises(Wrong, match="leave save out"):
        NothingToSave().save(LoopState())
