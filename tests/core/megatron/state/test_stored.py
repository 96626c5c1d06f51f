"""A checkpoint of any layout holds, bit for bit, the model that its trainer writes as a HuggingFace directory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import modelcfg
from common.mistake import Wrong
from core.megatron.state.stored import StoredModel
from tests.support.ranks import run_ranks
from tests.support.tiny_models import (
    EXPERTS,
    EYE,
    POST_NORMS,
    SEEING,
    SIGMOID_EXPERTS,
    SINKS,
    STATEFUL,
    WHOLE_NORMS,
    tiny_model,
)

TP2 = {"tensor_parallel": 2}
CUT = {**TP2, "sequence_parallel": True, "expert_parallel": 2}
CUT_EXPERTS = {**TP2, "sequence_parallel": True, "expert_tensor_parallel": 2}
PP2 = {"pipeline_parallel": 2}
TP4 = {"tensor_parallel": 4}  # more ranks than query groups
# kind of the model, changes to it, number of ranks, placement, whether the optimiser's state is shared out
CASES: dict[str, tuple[str, dict[str, Any], int, dict[str, Any], bool]] = {
    "one": ("qwen3-tied", {}, 1, {}, False),
    "tp2": ("llama", {}, 2, TP2, False),
    "tp2-distopt": ("qwen3", {}, 2, TP2, True),
    "dp2-distopt": ("qwen2-tied", {}, 2, {}, True),
    "tp2-post-norms": (POST_NORMS, {}, 2, TP2, False),
    "pp2-tied": ("qwen2-tied", {}, 2, PP2, False),
    "ep2": (EXPERTS, {}, 2, {"expert_parallel": 2}, False),
    "tp4-odd-vocab": ("qwen2", {"vocab_size": 509}, 4, TP4, False),
    **{
        f"{kind}-ep2": (kind, {}, 2, {"expert_parallel": 2}, False)
        for kind in (*SIGMOID_EXPERTS, WHOLE_NORMS, STATEFUL, SINKS)
    },
    "pp2-states": (SEEING, {}, 2, PP2, False),
    "tp2-states-distopt": (SEEING, {}, 2, TP2, True),
    **{f"{kind}-tp2-ep2": (kind, {}, 2, CUT, kind == SINKS) for kind in (STATEFUL, SINKS, "deepseek_v3")},
    "tp2-etp2": ("deepseek_v3", {}, 2, CUT_EXPERTS, False),
    "tp2-ep2-etp2-distopt": (STATEFUL, {}, 4, {**CUT, **CUT_EXPERTS}, True),
    "pp2-ep2-distopt": (EXPERTS, {}, 4, {**PP2, "expert_parallel": 2}, True),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`NAME/model`, the checkpoint after an update in `NAME/saved`, and what the trainer wrote then in `NAME/hf`.

    What it wrote of the checkpoint during the update after that is in `NAME/beside`.
    """
    root = tmp_path_factory.mktemp("stored")
    for size in (1, 2, 4):
        cases = {}
        for name, (kind, changes, ranks, placement, distributed) in CASES.items():
            if ranks == size:
                here = root / name
                cases[name] = {
                    "model": str(tiny_model(kind, here / "model", **changes)),
                    "config": {"placement": placement, "train": {"use_distributed_optimizer": distributed}},
                    "actions": [
                        *(["update", 0], ["save", str(here / "saved")], ["save_hf", str(here / "hf")]),
                        ["export_beside", str(here / "saved"), str(here / "beside"), "update", 1],
                    ],
                }
        for name, found in run_ranks(root / f"ranks{size}", size, cases).items():
            assert len(found) == 4, (name, found)
    return root


def stored(folder: Path) -> StoredModel:
    shape = modelcfg.from_hf(json.loads((folder / "model" / "config.json").read_text()))
    return StoredModel(folder / "saved", shape)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("name", CASES)
def test_weights_are_those_that_the_trainer_writes(folder: Path, name: str) -> None:
    written = load_file(folder / name / "hf" / "model.safetensors")
    wanted = {key: tensor for key, tensor in written.items() if not key.startswith(EYE)}
    found = dict(stored(folder / name).tensors())
    assert found.keys() == wanted.keys()
    assert [key for key in wanted if not torch.equal(found[key], wanted[key])] == []
    before = load_file(folder / name / "model" / "model.safetensors")
    assert any(not torch.equal(before[key], wanted[key]) for key in wanted), "the update changed nothing"


@pytest.mark.parametrize("name", CASES)
def test_a_model_that_is_written_while_the_trainer_goes_on_is_that_of_the_checkpoint(folder: Path, name: str) -> None:
    wanted, found = folder / name / "hf", folder / name / "beside"
    assert contents(found) == contents(wanted)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        pytest.param({"vocab_size": 600}, r"found \[512, 64\] for embedding.word_embeddings.weight", id="vocabulary"),
        pytest.param({"num_hidden_layers": 3}, r"found no decoder.layers.*weight 2 in", id="more layers"),
        pytest.param({"intermediate_size": 80}, r"mlp.linear_fc1.weight in .*wanted \[80, 64\]", id="width"),
        pytest.param({"num_key_value_heads": 4}, r"self_attention.linear_qkv.weight", id="query groups"),
    ],
)
def test_another_models_shape_is_refused(folder: Path, changes: dict[str, Any], said: str) -> None:
    config = json.loads((folder / "one" / "model" / "config.json").read_text())
    with pytest.raises(Wrong, match=said):
        list(StoredModel(folder / "one" / "saved", modelcfg.from_hf({**config, **changes})).tensors())


def test_neither_megatron_nor_an_engine_is_imported() -> None:
    code = "import sys, launchers.transfer.export; print([n for n in ('megatron', 'sglang') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
