"""Engines in few bits: which run files are refused, and what is said."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from common.mistake import Wrong
from core.checks import check_run_file
from core.checks.engine_weights import WHOLE, misfit, not_computed
from core.config import RunFileError
from core.config.sections.placement import PlacementConfig
from core.pretrained.few_bits import FEW_BITS, word_of
from modelcfg import load
from tests.support.good_run import write_run

FP8 = ["placement.engine_weights=fp8", "placement.device=cuda"]
INT8 = ["placement.engine_weights=int8", "placement.device=cuda"]
REFUSED = {
    "on CPUs": (
        [*FP8, "placement.device=cpu"],
        "placement.engine_weights: found fp8 with placement.device cpu; wanted GPUs of compute capability 8.9 or more, "
        "whose engines have kernels for it: set it to int8 or whole, or placement.device to cuda",
    ),
    "nothing is trained": (
        [*FP8, "placement.trainers=none"],
        "placement.engine_weights: found fp8 with placement.trainers none; wanted trainer ranks and engines: a weight "
        "sync makes the fp8 of what is trained: remove it",
    ),
    "in float32": (
        [*FP8, "model.dtype=float32"],
        "placement.engine_weights: found fp8 with model.dtype float32; wanted bfloat16, in which such an engine has "
        "what is not in fp8: set it to whole, or model.dtype to bfloat16",
    ),
    "int8 in float32": (
        [*INT8, "model.dtype=float32"],
        "placement.engine_weights: found int8 with model.dtype float32; wanted bfloat16, in which such an engine has "
        "what is not in int8: set it to whole, or model.dtype to bfloat16",
    ),
    "int8 of nothing that is trained": (
        [*INT8, "placement.trainers=none"],
        "placement.engine_weights: found int8 with placement.trainers none; wanted trainer ranks and engines: a weight "
        "sync makes the int8 of what is trained: remove it",
    ),
    "sizes": (
        FP8,
        "placement.engine_weights: found fp8 with model.layers.0.self_attn.q_proj.weight of 48 × 48; wanted rows and "
        "columns that 128 divides, as a block has a factor of its own: set it to whole",
    ),
}


@pytest.mark.parametrize(("overrides", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(tmp_path: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(RunFileError) as error:
        check_run_file(write_run(tmp_path), overrides)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("word", "name", "ranks", "expert_ranks", "part"),
    [
        ("fp8", "qwen3-4b", 1, 1, ""),
        ("fp8", "qwen3-4b", 8, 1, "down_proj.weight of 2560 × 1216|gate_proj.weight of 1216 × 2560"),
        ("fp8", "qwen3-30b-a3b", 2, 1, ""),
        ("fp8", "qwen3-30b-a3b", 4, 1, "experts.0.gate_proj.weight of 192 × 2048 on each of an engine's 4 ranks"),
        ("fp8", "qwen3-30b-a3b", 8, 8, ""),
        ("fp8", "deepseek-v3-671b-a37b", 8, 1, ""),
        ("fp8", "glm4-9b", 1, 1, ""),
        ("fp8", "glm4-9b", 2, 1, "mlp.gate_up_proj.weight of 6848 × 4096 on each of an engine's 2 ranks"),
        ("fp8", "gpt-oss-20b", 1, 1, "all experts of a layer in one tensor"),
        ("fp8", "qwen3-next-80b-a3b", 1, 1, ""),
        ("fp8", "qwen3-next-80b-a3b", 4, 4, ""),
        (
            "fp8",
            "qwen3-next-80b-a3b",
            32,
            32,
            "linear_attn.in_proj_qkvz.weight of 64 × 2048 on each of an engine's 32 ranks",
        ),
        ("fp8", "llama-3.1-8b", 8, 1, ""),
        ("fp8", "qwen2.5-7b", 1, 1, ""),
        ("int8", "qwen3-4b", 8, 1, ""),
        ("int8", "qwen3-30b-a3b", 8, 1, ""),
        ("int8", "llama-3.1-8b", 8, 1, ""),
        ("int8", "glm4-9b", 2, 1, ""),
        ("int8", "glm4-9b", 16, 1, "mlp.gate_up_proj.weight of 856 × 4096 on each of an engine's 16 ranks"),
        ("int8", "gpt-oss-20b", 1, 1, "int8 for gpt_oss, whose files have all experts of a layer in one tensor"),
        ("int8", "deepseek-v3-671b-a37b", 8, 1, "int8 for deepseek_v3, whose attention is latent"),
        ("int8", "qwen3-next-80b-a3b", 1, 1, "int8 for qwen3_next, which has layers with a state"),
    ],
)
def test_families_and_sizes(word: str, name: str, ranks: int, expert_ranks: int, part: str) -> None:
    wrong = misfit(load(name), FEW_BITS[word], ranks, expert_ranks)
    assert (wrong is None) == (not part)
    assert wrong is None or any(one in wrong.found for one in part.split("|"))


@pytest.mark.parametrize("overrides", [["placement.device=cpu"], ["placement.device=cpu", "model.dtype=float32"]])
def test_engines_on_cpus_have_int8(tmp_path: Path, overrides: list[str]) -> None:
    assert check_run_file(write_run(tmp_path), [*INT8, *overrides]).placement.engine_weights == "int8"


def test_what_does_not_compute_in_few_bits() -> None:
    fp8, int8 = FEW_BITS["fp8"], FEW_BITS["int8"]
    for way, device, capability in (
        *((fp8, "cuda", 9.0), (fp8, "cuda", None)),
        *((int8, "cuda", 8.0), (int8, "cuda", 9.0), (int8, "cpu", None)),
    ):
        assert not_computed(way, device, capability) is None
    for way, device, capability, found, remedy in (
        (fp8, "cuda", 8.0, "fp8 on GPUs of compute capability 8.0", "set it to int8 or whole"),
        (fp8, "cpu", None, "fp8 on cpu", "set it to int8 or whole"),
        (int8, "cuda", 10.0, "int8 on GPUs of compute capability 10.0", "set it to fp8 or whole"),
    ):
        assert str(not_computed(way, device, capability)) == str(Wrong(found, way.cards, remedy))
    latent = load("deepseek-v3-671b-a37b")
    wrong = not_computed(fp8, "cuda", 8.0, latent)
    assert wrong is not None
    assert wrong.remedy == WHOLE


def test_the_run_file_has_a_word_for_each_way() -> None:
    words = get_args(PlacementConfig.model_fields["engine_weights"].annotation)
    assert set(words) == {"whole", *FEW_BITS}
    assert [word_of(way.scheme.engine_settings(())) for way in FEW_BITS.values()] == list(FEW_BITS)
    assert word_of(None) == word_of({"quant_method": "mxfp4"}) == ""
