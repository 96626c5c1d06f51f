from __future__ import annotations

import json
from pathlib import Path

import pytest

import modelcfg
from common.mistake import Wrong
from launchers.show.model_table import least_gpus, show
from tests.support.hf_forms import published_form

PAGE = Path(__file__).parents[3] / "docs" / "models.md"


def test_the_table_has_every_model() -> None:
    lines = show().splitlines()
    assert lines[0].split()[:3] == ["name", "family", "kind"]
    assert [line.split()[0] for line in lines[1:]] == modelcfg.names()


def test_a_row_of_the_table() -> None:
    row = next(line for line in show().splitlines() if line.startswith("qwen2.5-7b"))
    wanted = "qwen2.5-7b qwen2 dense 28 3584 28/4 152064 7615.6 M 7615.6 M 14.19 2"
    assert row.split() == wanted.split()
    row = next(line for line in show().splitlines() if line.startswith("qwen3-30b-a3b"))
    assert row.split()[2] == "experts"
    assert row.split()[-6:] == ["30532.1", "M", "3353.0", "M", "56.87", "8"]


@pytest.mark.parametrize(
    ("name", "gpus"),
    [("qwen3-4b", 1), ("qwen3-8b", 2), ("qwen3-14b", 4), ("llama-3.3-70b", 16), ("qwen3-235b-a22b", 56)],
)
def test_gpus_that_hold_the_state_of_training(name: str, gpus: int) -> None:
    shape = modelcfg.load(name)
    assert least_gpus(shape) == gpus
    assert gpus * 80e9 >= 18 * modelcfg.num_parameters(shape)


def test_a_directory_is_told_by_its_name_or_by_how_it_differs(tmp_path: Path) -> None:
    form = published_form(modelcfg.load("llama-3.2-1b"))
    (tmp_path / "config.json").write_text(json.dumps(form))
    assert show(str(tmp_path)).endswith("\n\nknown as llama-3.2-1b")
    assert show(str(tmp_path / "config.json")) == show(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps(form | {"vocab_size": 7, "tie_word_embeddings": False}))
    assert show(str(tmp_path)).endswith(
        "\n\nnot known by name; nearest to llama-3.2-1b, and differs from it:\n"
        "  vocab_size: 7 here, 128256 there\n  tied_embeddings: false here, true there"
    )
    (tmp_path / "config.json").write_text("[")
    with pytest.raises(Wrong, match=r"config.json, which cannot be read; wanted a model's config.json"):
        show(str(tmp_path))


def test_entries_of_one_shape_are_all_told() -> None:
    names, differences = modelcfg.nearest_entries(published_form(modelcfg.load("llama-3.3-70b")))
    assert (names, differences) == (["llama-3.1-70b", "llama-3.3-70b", "r1-distill-llama-70b"], [])
    assert show("meta-llama/Llama-3.3-70B-Instruct") == show("llama-3.3-70b")


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
