from __future__ import annotations

import re
from pathlib import Path

import pytest

import modelcfg
from modelcfg import catalogue

# What lies in the files and is not trained: the layer behind the last (a layer with experts, a matrix [H, 2 H], three
# norms, an embedding and an output layer), and the biases of all routers.
CARRIED = {
    "glm4.5-106b-a12b": 2_341_492_736 + 2 * 4096**2 + 3 * 4096 + 2 * 151_552 * 4096 + 46 * 128,
    "glm4.7-flash-30b-a3b": 635_311_360 + 2 * 2048**2 + 3 * 2048 + 2 * 154_880 * 2048 + 47 * 64,
    "glm4.5-355b-a32b": 3_935_625_472 + 2 * 5120**2 + 3 * 5120 + 2 * 151_552 * 5120 + 90 * 160,
}
# Scales of the published fp8 weights of MiniMax-M2, one for each block of 128 by 128, and the biases of its routers.
MINIMAX_BESIDE = 62 * (256 * 3 * 24 * 12 + 2 * 48 * 24 + 2 * 8 * 24) + 62 * 256
# The heads for several tokens of MiMo: a layer, a matrix [H, 2 H] and three norms. Its number below is not of an index,
# but counted by its config.json and the names of its tensors; the card says 7.83 billion.
MIMO_HEADS = 177_223_680 + 2 * 4096**2 + 3 * 4096
# The layer for several tokens of Qwen3-Next: attention, experts, a matrix [H, 2 H] and five norms.
NEXT_BESIDE = 27_263_488 + 1_614_809_088 + 2 * 2048**2 + 5 * 2048
# What sees images in Qwen3.5, counted by its vision_config, and the layer for several tokens: attention, a feed-forward
# or experts, a matrix [H, 2 H] and five norms. With them the numbers below are those of the files.
SEEING = {
    "qwen3.5-0.8b": 100_592_896 + 18_350_592 + 2 * 1024**2 + 5 * 1024,
    "qwen3.5-2b": 331_416_576 + 52_429_312 + 2 * 2048**2 + 5 * 2048,
    "qwen3.5-4b": 333_514_240 + 107_479_552 + 2 * 2560**2 + 5 * 2560,
    "qwen3.5-9b": 456_010_480 + 209_715_712 + 2 * 4096**2 + 5 * 4096,
    "qwen3.5-27b": 460_730_096 + 372_244_992 + 2 * 5120**2 + 5 * 5120,
    "qwen3.5-35b-a3b": 446_571_248 + 836_241_920 + 2 * 2048**2 + 5 * 2048,
    "qwen3.5-122b-a10b": 451_290_864 + 2_504_789_504 + 2 * 3072**2 + 5 * 3072,
    "qwen3.5-397b-a17b": 456_010_480 + 6_561_993_216 + 2 * 4096**2 + 5 * 4096,
}


def _gpt_oss(num_bytes: int, experts: int) -> int:
    """Parameters by the bytes of an index: an expert's matrices are in mxfp4, 17 bytes for 32; all else is bfloat16."""
    of_expert = 3 * 2880 * 2880
    return (num_bytes - experts * of_expert // 32 * 17) // 2 + experts * of_expert


# Published sizes, in parameters, from the safetensors indices on the hub (a tied embedding counts once).
PUBLISHED = {
    # without the biases of their routers
    **dict.fromkeys((f"deepseek-{x}-671b-a37b" for x in ("r1", "v3", "v3-0324", "v3.1")), 671_026_419_200 - 58 * 256),
    **dict.fromkeys((f"kimi-k2{x}-1026b-a32b" for x in ("", "-0905", "-thinking")), 1_026_408_232_448 - 60 * 384),
    "moonlight-16b-a3b": 15_960_110_208 - 26 * 64,
    "glm4-9b": 9_400_279_040,
    "glm4-32b": 32_566_081_536,
    "glm4.5-106b-a12b": 110_468_824_832 - CARRIED["glm4.5-106b-a12b"],
    "glm4.5-355b-a32b": 358_337_791_296 - CARRIED["glm4.5-355b-a32b"],
    "glm4.6-355b-a32b": 358_337_791_296 - CARRIED["glm4.5-355b-a32b"],
    "glm4.7-355b-a32b": 358_337_791_296 - CARRIED["glm4.5-355b-a32b"],
    "glm4.7-flash-30b-a3b": 31_221_488_576 - CARRIED["glm4.7-flash-30b-a3b"],
    "gpt-oss-20b": _gpt_oss(13_761_264_768, 24 * 32),
    "gpt-oss-120b": _gpt_oss(65_248_815_744, 36 * 128),
    "llama-3-8b": 8_030_261_248,
    "llama-3-70b": 70_553_706_496,
    "llama-3.1-8b": 8_030_261_248,
    "llama-3.1-70b": 70_553_706_496,
    "llama-3.1-405b": 405_853_388_800,
    "llama-3.2-1b": 1_235_814_400,
    "llama-3.2-3b": 3_212_749_824,
    "llama-3.3-70b": 70_553_706_496,
    **dict.fromkeys(("mimo-7b", "mimo-base-7b"), 7_833_409_536 - MIMO_HEADS),
    **dict.fromkeys((f"minimax-m2{x}-229b-a10b" for x in ("", ".1", ".5")), 228_703_644_928 - MINIMAX_BESIDE),
    "mistral-7b": 7_248_023_552,
    "mistral-nemo-12b": 12_247_782_400,
    "mistral-small-24b": 23_572_403_200,
    "qwen2.5-0.5b": 494_032_768,
    "qwen2.5-1.5b": 1_543_714_304,
    "qwen2.5-3b": 3_085_938_688,
    "qwen2.5-7b": 7_615_616_512,
    "qwen2.5-14b": 14_770_033_664,
    "qwen2.5-32b": 32_763_876_352,
    "qwen2.5-72b": 72_706_203_648,
    "qwen2.5-base-14b": 14_770_033_664,
    "qwen2.5-base-32b": 32_763_876_352,
    "qwen2.5-base-72b": 72_706_203_648,
    "qwen2.5-math-1.5b": 1_543_714_304,
    "qwen2.5-math-7b": 7_615_616_512,
    "qwen2.5-coder-0.5b": 494_032_768,
    "qwen2.5-coder-1.5b": 1_543_714_304,
    "qwen2.5-coder-3b": 3_085_938_688,
    "qwen2.5-coder-7b": 7_615_616_512,
    "qwen2.5-coder-14b": 14_770_033_664,
    "qwen2.5-coder-32b": 32_763_876_352,
    "qwen3-0.6b": 596_049_920,
    "qwen3-1.7b": 1_720_574_976,
    "qwen3-4b": 4_022_468_096,
    "qwen3-8b": 8_190_735_360,
    "qwen3-14b": 14_768_307_200,
    "qwen3-30b-a3b": 30_532_122_624,
    "qwen3-32b": 32_762_123_264,
    "qwen3-235b-a22b": 235_093_634_560,
    "qwen3-2507-4b": 4_022_468_096,
    "qwen3-2507-30b-a3b": 30_532_122_624,
    "qwen3-2507-235b-a22b": 235_093_634_560,
    "qwen3-coder-30b-a3b": 30_532_122_624,
    "qwen3-coder-480b-a35b": 480_154_875_392,
    **dict.fromkeys((f"qwen3-next{x}-80b-a3b" for x in ("", "-thinking")), 81_324_862_720 - NEXT_BESIDE),
    "qwen3.5-0.8b": 873_438_784 - SEEING["qwen3.5-0.8b"],
    "qwen3.5-2b": 2_274_069_824 - SEEING["qwen3.5-2b"],
    "qwen3.5-4b": 4_659_865_088 - SEEING["qwen3.5-4b"],
    "qwen3.5-9b": 9_653_104_368 - SEEING["qwen3.5-9b"],
    "qwen3.5-27b": 27_781_427_952 - SEEING["qwen3.5-27b"],
    "qwen3.5-35b-a3b": 35_951_822_704 - SEEING["qwen3.5-35b-a3b"],
    "qwen3.5-122b-a10b": 125_086_497_008 - SEEING["qwen3.5-122b-a10b"],
    "qwen3.5-397b-a17b": 403_397_928_944 - SEEING["qwen3.5-397b-a17b"],
    "qwen3.6-35b-a3b": 35_951_822_704 - SEEING["qwen3.5-35b-a3b"],
    "qwen3.6-27b": 27_781_427_952 - SEEING["qwen3.5-27b"],
    "r1-distill-llama-8b": 8_030_261_248,
    "r1-distill-llama-70b": 70_553_706_496,
    "r1-distill-qwen-1.5b": 1_777_088_000,
    "r1-distill-qwen-7b": 7_615_616_512,
    "r1-distill-qwen-14b": 14_770_033_664,
    "r1-distill-qwen-32b": 32_763_876_352,
    "smollm2-135m": 134_515_008,
    "smollm2-360m": 361_821_120,
    "smollm2-1.7b": 1_711_376_384,
}


def test_every_model_has_a_published_size() -> None:
    assert set(modelcfg.names()) == set(PUBLISHED)


def test_names_are_sorted_by_family_and_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """900 million are fewer than 1.5 billion; a name that ends in no size is a family of its own."""
    wanted = [
        "a-10m",
        "a-9b-a2b",
        "a-10b",
        "a-30b-a1b",
        "a-2-900m",
        "a-2-1.5b",
        "b",
        "b-135m",
        "b-0.5b",
        "b-999m",
        "b-x",
    ]
    for name in sorted(wanted):
        (tmp_path / f"{name}.yaml").touch()
    monkeypatch.setattr(catalogue, "FOLDER", tmp_path)
    assert list(catalogue._sorted_names.__wrapped__()) == wanted


def test_a_name_on_the_hub_is_that_of_one_entry() -> None:
    hubs = [modelcfg.load(name).hub for name in modelcfg.names()]
    assert len(set(hubs)) == len(hubs)
    assert all(re.fullmatch(r"[\w.-]+/[\w.-]+", hub) for hub in hubs)
    found = modelcfg.load_hub("Qwen/Qwen3-8B")
    assert found is not None
    assert found.name == "qwen3-8b"
    assert modelcfg.load_hub("Qwen/Qwen9") is None


def test_names_of_this_folder_are_sorted() -> None:
    qwen = [name for name in modelcfg.names() if re.fullmatch(r"qwen2\.5-[\d.]+b", name)]
    assert qwen == [
        "qwen2.5-0.5b",
        "qwen2.5-1.5b",
        "qwen2.5-3b",
        "qwen2.5-7b",
        "qwen2.5-14b",
        "qwen2.5-32b",
        "qwen2.5-72b",
    ]


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_the_published_number(name: str) -> None:
    assert modelcfg.num_parameters(modelcfg.load(name)) == PUBLISHED[name]


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_file_is_named_after_its_model(name: str) -> None:
    assert modelcfg.load(name).name == name


@pytest.mark.parametrize(
    ("word", "message"),
    [
        pytest.param("qwen2.5-0.5B", "did you mean qwen2.5-0.5b?", id="letter case"),
        pytest.param("smolm2-135m", "did you mean smollm2-135m?", id="typo"),
        pytest.param("gpt", "choose one of deepseek-r1-671b-a37b, ", id="nothing near"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(word: str, message: str) -> None:
    with pytest.raises(modelcfg.UnknownModelError, match=re.escape(message)):
        modelcfg.load(word)


def test_groups_must_divide_heads() -> None:
    fields = modelcfg.load("smollm2-135m").model_dump() | {"num_query_groups": 2}
    with pytest.raises(ValueError, match="9 attention heads cannot be shared out over 2 query groups"):
        modelcfg.ModelShape(**fields)


def test_parts_of_a_model_by_their_names() -> None:
    assert modelcfg.parameter_parts(modelcfg.load("qwen3-30b-a3b")) == {
        "embedding": 151936 * 2048,
        "attention": 48 * (2048 * (2 * 4096 + 2 * 512) + 2 * 128),
        "router": 48 * 128 * 2048,
        "feed-forward": 48 * 128 * 3 * 2048 * 768,
        "norms": 97 * 2048,
        "output": 151936 * 2048,
    }


def test_of_the_experts_only_the_chosen_compute_a_token() -> None:
    shape = modelcfg.load("qwen3-30b-a3b")
    assert modelcfg.active_parameters(shape) == pytest.approx(3.3e9, rel=0.02)  # as its name and its card say
    dense = modelcfg.load("qwen3-8b")
    assert modelcfg.active_parameters(dense) == modelcfg.num_parameters(dense)


@pytest.mark.parametrize(("experts", "chosen"), [(0, 1), (8, 0), (4, 5)])
def test_experts_that_cannot_be_chosen_are_refused(experts: int, chosen: int) -> None:
    wrong = modelcfg.load("qwen3-30b-a3b").model_dump() | {"num_experts": experts, "experts_per_token": chosen}
    with pytest.raises(ValueError, match="experts per token"):
        modelcfg.ModelShape.model_validate(wrong)
