"""A replayed step beside the recorded one, and a sample token by token."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console, RenderableType

from common.mistake import Wrong
from core.trajectory import Ragged, StepRecord
from launchers.show.replayed import compared, is_equal, sample_place, tokens_table
from tests.support.step_samples import make_record, make_samples

METRICS = {"train/loss": 0.25, "train/grad_norm": 1.5, "train/lr": 1e-6, "perf/train_time": 3.0}


def shown(table: RenderableType) -> str:
    console = Console(width=160, file=io.StringIO(), record=True)
    console.print(table)
    return console.export_text()


@pytest.fixture
def record() -> StepRecord:
    made = replace(make_record(make_samples(3, 4)), metrics=METRICS)
    policy = made.logprobs_old.values + np.float32(0.1)
    return replace(made, logprobs_policy=Ragged(policy, made.logprobs_old.offsets))


def test_times_and_learning_rates_are_not_compared(record: StepRecord) -> None:
    later = replace(record, metrics={**METRICS, "perf/train_time": 9.0})
    assert is_equal(record, later)
    text = shown(compared(record, later))
    assert "equal to the last bit" in text
    assert "grad_norm" in text
    assert "time" not in text


def test_a_difference_is_shown(record: StepRecord) -> None:
    other = replace(record, metrics={**METRICS, "train/loss": 0.5})
    text = shown(compared(record, other))
    assert "not equal" in text
    assert [line.split() for line in text.splitlines() if "loss" in line] == [["loss", "0.25", "0.5", "+0.25"]]


def test_other_advantages_are_not_equal(record: StepRecord) -> None:
    assert not is_equal(record, replace(record, advantage=record.advantage + np.float32(1e-7)))


def test_each_token_has_its_log_probs_advantage_and_ratio(record: StepRecord) -> None:
    place = int(np.argmax(record.response_tokens.lengths))
    name = f"{record.group[place]}.{record.index[place]}"
    assert sample_place(record, name) == place
    lines = shown(tokens_table(record, place, lambda tokens: f"<{tokens[0]}>")).splitlines()
    rows = [line.split() for line in lines if "<" in line]
    assert len(rows) == len(record.response_tokens[place])
    for number, row in enumerate(rows):
        assert row[:2] == [str(number), f"'<{record.response_tokens[place][number]}>'"]
        engine, old, policy, advantage, ratio = map(float, row[2:])
        assert engine == pytest.approx(record.logprobs_engine[place][number], rel=1e-5)
        assert policy == pytest.approx(old + 0.1, rel=1e-4)
        assert advantage == pytest.approx(record.advantage[place], rel=1e-5)
        assert ratio == pytest.approx(np.exp(0.1), rel=1e-4)


def test_a_sample_that_is_not_there_is_refused(record: StepRecord) -> None:
    with pytest.raises(Wrong, match=r"found --sample 7.0; wanted GROUP.INDEX, one of 0.0 to 2.3"):
        sample_place(record, "7.0")
