"""Datasets of reasoning_gym whose options are objects there and plain values in a run file."""

from __future__ import annotations

from typing import Any

import pytest

from common.mistake import Wrong
from core.config.sections.data import DataConfig
from core.config.sections.reward import RewardConfig
from core.data import load_rows
from core.reward.sample import RewardInput
from core.reward.scorers import build_scorer

PARTS = [{"name": "basic_arithmetic", "weight": 2}, {"name": "chain_sum", "config": {"max_terms": 3}}]


def composite(datasets: Any) -> DataConfig:
    return DataConfig(source="reasoning_gym", dataset="composite", size=6, options={"datasets": datasets})


def test_a_composite_is_made_and_scored() -> None:
    rows = load_rows(composite(PARTS))
    assert {row["entry"]["metadata"]["source_dataset"] for row in rows} == {"basic_arithmetic", "chain_sum"}
    score = build_scorer(RewardConfig(type="reasoning_gym"))
    for row in rows:
        metadata = {key: row[key] for key in ("dataset", "options", "entry")}
        assert score(RewardInput("", row["label"], row["label"], metadata)) == 1.0
        assert score(RewardInput("", "no idea", row["label"], metadata)) < 0.1


@pytest.mark.parametrize(
    "datasets",
    [None, [], "chain_sum", ["chain_sum"], [{"weight": 1}], [{"name": "no_such"}], [{"name": "chain_sum", "size": 3}]],
    ids=str,
)
def test_a_composite_of_other_things_is_refused_in_words(datasets: Any) -> None:
    with pytest.raises(Wrong, match="which the reasoning_gym dataset 'composite' refuses"):
        load_rows(composite(datasets))
