"""Which parameters expressions mean, for every known model, and on every rank of a layout."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

import modelcfg
from launchers.moving_in.draft import Draft
from launchers.moving_in.flags import Flags
from launchers.moving_in.rules.chosen import chosen
from launchers.moving_in.shell import Gaps
from modelcfg.chosen import (
    ALL,
    Choice,
    chosen_parameters,
    num_trained,
    tensor_names,
    torn,
    without_match,
)
from modelcfg.shards import rank_parameters
from modelcfg.stages import Stages

PAGE = (Path(__file__).parents[2] / "docs" / "algorithms.md").read_text(encoding="utf-8")
SECTION = PAGE[PAGE.index("## Training a part of the model") : PAGE.index("## What is refused")]
ROWS = re.findall(r"^\| [^|]+ \| (`.*`) \| (?:`(--.*?)`)? ?\|$", SECTION, re.M)


def choice_of(text: str) -> Choice:
    return Choice(**{key: tuple(value) for key, value in yaml.safe_load(f"{{{text}}}").items()})


@pytest.mark.parametrize("name", modelcfg.names())
def test_names_are_those_of_a_checkpoint_that_a_gradient_trains(name: str) -> None:
    shape = modelcfg.load(name)
    wanted = set(modelcfg.hf_tensors(shape)) - modelcfg.fixed_tensors(shape)
    assert set(tensor_names(shape)) == wanted


def said(keys: str, *, tied: bool) -> Choice:
    """What a row says; of tied embeddings in other words at its end, if it does."""
    first, *others = re.findall("`(.*?)`", keys)
    return choice_of(f"freeze: {others[0]}" if tied and others else first)


@pytest.mark.parametrize("keys", [keys for keys, _ in ROWS])
def test_rows_of_the_page_fit_models(keys: str) -> None:
    fitting = []
    for name in ("qwen3-30b-a3b", "qwen2.5-7b", "llama-3.2-1b"):
        shape = modelcfg.load(name)
        choice = said(keys, tied=shape.tied_embeddings)
        if not without_match(shape, choice.only or choice.freeze):
            assert torn(shape, choice) is None
            assert 0 < num_trained(shape, choice) < modelcfg.num_parameters(shape)
            fitting.append(name)
    assert fitting


@pytest.mark.parametrize(("keys", "flag"), [(keys, flag) for keys, flag in ROWS if flag])
def test_flags_of_the_page_mean_the_same(keys: str, flag: str) -> None:
    flags, draft = Flags(flag.split(), Gaps()), Draft()
    chosen(flags, draft)
    found = Choice(**{key.removeprefix("train."): tuple(one.value) for key, one in draft.settings.items()})
    for shape in map(modelcfg.load, ("qwen3-30b-a3b", "deepseek-v3-671b-a37b")):
        wanted = said(keys, tied=False)
        assert chosen_parameters(shape, found).trained == chosen_parameters(shape, wanted).trained


def test_ranks_have_what_is_trained_and_what_is_frozen_in_their_order() -> None:
    shape, stages = modelcfg.load("deepseek-v3-671b-a37b"), Stages(4, 15, 14)
    choice = Choice(only=("kv_b_proj", "experts.*gate_up_proj", "lm_head", "experts.*(gate|up)_proj"))
    for stage in range(4):
        split = (8, stages, stage, 16)
        every = rank_parameters(shape, *split)
        trained, frozen = chosen_parameters(shape, choice, *split)
        assert trained.keys() & frozen.keys() == set()
        assert {name: {**frozen, **trained}[name] for name in every} == every
        assert list(trained) == [name for name in every if name in trained]
        assert all("linear_kv_up" in n or "linear_fc1" in n or n == "output_layer.weight" for n in trained)
        assert ("output_layer.weight" in trained) == (stage == 3)


def test_a_tied_output_layer_is_frozen_with_the_embedding_on_both_stages() -> None:
    shape, choice = modelcfg.load("qwen3-0.6b"), Choice(freeze=("embed_tokens",))
    assert "embedding.word_embeddings.weight" not in chosen_parameters(shape, choice, 1, Stages(2), 0).trained
    assert "output_layer.weight" not in chosen_parameters(shape, choice, 1, Stages(2), 1).trained
    assert "output_layer.weight" in chosen_parameters(shape, ALL, 1, Stages(2), 1).trained


def test_stacked_experts_may_be_named_as_files_have_them() -> None:
    """A file may have the experts of a layer one by one, or stacked."""
    shape = modelcfg.load("qwen3.5-35b-a3b")
    one, other = (Choice(freeze=(word,)) for word in (r"experts\.gate_up_proj", r"experts\.\d+\.(gate|up)_proj"))
    assert without_match(shape, one.freeze) == []
    stacked, single, every = (chosen_parameters(shape, choice).trained for choice in (one, other, ALL))
    assert stacked == single != every


@pytest.mark.parametrize(
    ("expression", "pair"),
    [
        ("q_proj", ("k_proj.weight", "q_proj.weight")),
        ("up_proj", ("gate_proj.weight", "up_proj.weight")),
        (r"experts\.7\.down_proj", ("experts.0.down_proj.weight", "experts.7.down_proj.weight")),
    ],
)
def test_a_part_of_a_parameter_is_found_out(expression: str, pair: tuple[str, str]) -> None:
    found = torn(modelcfg.load("qwen3-30b-a3b"), Choice(freeze=(expression,)))
    assert found is not None
    assert (found.trained.endswith(pair[0]), found.frozen.endswith(pair[1])) == (True, True)


@pytest.mark.parametrize("word", ["mtp", "vision_model", "layers.*eagle"])
def test_flags_with_other_names_are_lost_and_say_what_to_set(word: str) -> None:
    draft = Draft()
    chosen(Flags(["--freeze-params-name-list", "embedding", word], Gaps()), draft)
    (lost,) = draft.lost
    assert (draft.settings, lost.loses) == ({}, "result")
    assert lost.do == "set train.freeze to expressions over names of the checkpoint"
