"""A smaller model that drafts (`speculative_algorithm: STANDALONE`): which fit, and what is said of others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.checks import check_run_file
from core.config import RunFileError
from tests.support.good_run import EXPERTS, SHAPE, write_model, write_run

OPTIONS = "placement.engine_options"
KEY = f"{OPTIONS}.speculative_draft_model_path"
GPU = "placement.device=cuda"
DRAFTS = [GPU, f"{OPTIONS}={{speculative_algorithm: STANDALONE, speculative_draft_model_path: draft}}"]
SMALLER = SHAPE.model_copy(update={"num_layers": 2, "hidden_size": 24})
PLAIN = "wanted a model with attention to all tokens in every layer, without experts"
REFUSED: dict[str, tuple[dict[str, Any], list[str], str]] = {
    "not said": (
        {},
        [GPU, f"{OPTIONS}.speculative_algorithm=STANDALONE"],
        f"{KEY}: found nothing, with speculative_algorithm STANDALONE; wanted the HuggingFace directory of a smaller "
        "model with the same tokenizer: set it, or choose another speculative_algorithm",
    ),
    "not there": ({}, [*DRAFTS, f"{KEY}=nowhere"], "nowhere, which does not exist; wanted a HuggingFace directory"),
    "without weights": ({}, [*DRAFTS, f"{KEY}=bare"], "tensors; wanted model.safetensors, or several"),
    "another vocabulary": ({"vocab_size": 520}, DRAFTS, "found draft with 520 rows of vocabulary; wanted 512, as "),
    "too short": (
        {"max_position_embeddings": 128},
        DRAFTS,
        f"{KEY}: found draft for 128 tokens; wanted one for 256, the longest sequence of the engine: set "
        f"{OPTIONS}.context_length to 128, or choose another",
    ),
    "experts": (EXPERTS, DRAFTS, PLAIN),
    "states": ({}, [*DRAFTS, f"{KEY}=states"], PLAIN),
    "windows": ({}, [*DRAFTS, f"{KEY}=sinks"], PLAIN),
    "a family with heads for several tokens": (
        {"architectures": ["MiMoForCausalLM"], "model_type": "mimo"},
        DRAFTS,
        "draft, mimo; wanted another family: of this one SGLang would draft with its heads for several tokens",
    ),
    "of no known form": ({}, [*DRAFTS, f"{KEY}=gpt2"], PLAIN),
    "for a model with windows": (
        {},
        [*DRAFTS, "model.path=sinks"],
        f"{OPTIONS}.speculative_algorithm: found STANDALONE for sinks; wanted a model with attention to all tokens in "
        "every layer: for others it was not tried: remove it, or set it to NGRAM",
    ),
    "quantised": (
        {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}},
        DRAFTS,
        "whose weights are quantised; wanted weights that are not quantised",
    ),
    "engines in fp8": (
        {},
        [*DRAFTS, "placement.engine_weights=fp8"],
        "placement.engine_weights: found fp8 with speculative_algorithm STANDALONE; wanted weights as they are trained",
    ),
    "another config for both": (
        {},
        [*DRAFTS, f"{OPTIONS}.json_model_override_args='{{}}'"],
        f"{OPTIONS}.json_model_override_args: found {{}}; wanted nothing with speculative_algorithm STANDALONE: it "
        "would change both models: remove it",
    ),
    "ranks that do not divide its heads": (
        {"num_attention_heads": 3, "num_key_value_heads": 1},
        [*DRAFTS, "placement.engine_tensor_parallel=2", "placement.trainers_per_node=2"],
        f"{KEY}: found draft with 3 heads in 1 groups; wanted heads, groups and columns that engine_tensor_parallel = "
        "2 divides, as it divides the model's: lower engine_tensor_parallel, or choose another",
    ),
}


def with_draft(folder: Path, **changes: Any) -> Path:
    """A run file, and a smaller model beside it."""
    path = write_run(folder)
    write_model(folder / "draft", SMALLER, **changes)
    return path


@pytest.mark.parametrize(("changes", "overrides", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(tmp_path: Path, changes: dict[str, Any], overrides: list[str], message: str) -> None:
    with pytest.raises(RunFileError) as error:
        check_run_file(with_draft(tmp_path, **changes), overrides)
    assert message in str(error.value)


def test_another_tokenizer_is_refused(tmp_path: Path) -> None:
    path = with_draft(tmp_path)
    for folder, vocabulary in (("model", {"a": 0, "b": 1}), ("draft", {"b": 0, "a": 1})):
        (tmp_path / folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}}))
    with pytest.raises(RunFileError) as error:
        check_run_file(path, DRAFTS)
    assert f"{KEY}: found {tmp_path}/draft, with another vocabulary: token 0 is 'a' only with" in str(error.value)


@pytest.mark.parametrize(
    ("changes", "more"),
    [
        ({}, []),
        ({}, ["placement.check_sync=1", "placement.weight_sync=files"]),
        ({"max_position_embeddings": 128}, [f"{OPTIONS}.context_length=128"]),
        ({}, ["model.path=experts"]),
    ],
    ids=["as it is", "proven, by files", "shorter, like the engine", "for experts"],
)
def test_let_through(tmp_path: Path, changes: dict[str, Any], more: list[str]) -> None:
    config = check_run_file(with_draft(tmp_path, **changes), [*DRAFTS, *more])
    assert config.placement.engine_options["speculative_draft_model_path"] == str(tmp_path / "draft")
