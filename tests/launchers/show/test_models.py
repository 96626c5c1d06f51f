from __future__ import annotations

from pathlib import Path

import pytest

import modelcfg
from launchers.show.model_table import show

PAGE = Path(__file__).parents[3] / "docs" / "models.md"


def test_the_table_has_every_model() -> None:
    lines = show().splitlines()
    assert lines[0].split()[:3] == ["name", "family", "layers"]
    assert [line.split()[0] for line in lines[1:]] == modelcfg.names()


def test_a_row_of_the_table() -> None:
    row = next(line for line in show().splitlines() if line.startswith("qwen2.5-7b"))
    assert row.split() == ["qwen2.5-7b", "qwen2", "28", "3584", "28/4", "152064", "7615.6", "M", "14.19"]


@pytest.mark.parametrize("name", modelcfg.names())
def test_one_model_shows_every_field(name: str) -> None:
    text = show(name)
    assert all(field in text for field in modelcfg.ModelShape.model_fields)
    assert f"{modelcfg.num_parameters(modelcfg.load(name)):,}" in text


def test_a_model_with_experts_shows_how_many_parameters_compute_a_token() -> None:
    lines = show("qwen3-30b-a3b").splitlines()
    (line,) = (line for line in lines if line.startswith("parameters per token"))
    assert line.split()[-1] == f"{modelcfg.active_parameters(modelcfg.load('qwen3-30b-a3b')):,}" == "3,353,032,704"
    assert "per token  " not in show("qwen3-8b")


def test_an_unknown_model_is_answered_with_the_nearest() -> None:
    with pytest.raises(modelcfg.UnknownModelError, match="did you mean qwen3-8b"):
        show("qwen3-8B")


def test_the_page_shows_the_table_and_one_model() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert show() in page
    assert show("llama-3.2-1b") in page
