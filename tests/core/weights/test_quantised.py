"""Weights for engines in few bits: a file's bytes, for each family, over an engine's ranks, and loaded again."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import Tensor, nn

from core.pretrained.few_bits import FEW_BITS, PUBLISHED, FewBits
from core.pretrained.packing import Packing
from core.sglang.errors import WeightsRefused
from core.sglang.expected import expected_tensors
from core.sglang.launch import ENGINE_SITE
from core.sglang.payload import Bucket
from core.sglang.weights import WeightUpdate
from core.weights import files as weight_files
from core.weights import quantised as module
from core.weights.files import WeightFiles
from core.weights.quantised import Quantised, quantised
from core.weights.sync import WeightSync
from launchers.transfer.convert import convert
from launchers.transfer.new_directory import PRECISIONS, shape_of
from modelcfg.blocks import Cut, uncut_blocks
from modelcfg.families import families
from tests.support.fake_engines import FakeEngines
from tests.support.tiny_models import GPU_SIZES, SEEING, STATEFUL, tiny_model

EXPERT_SIZES = {**GPU_SIZES, "num_hidden_layers": 2, "moe_intermediate_size": 128}
STATE_SIZES = {"linear_key_head_dim": 128, "linear_value_head_dim": 128}
KINDS = {
    "llama": GPU_SIZES,
    "glm4": GPU_SIZES,
    "deepseek_v3": {  # keys and values are made of 192 numbers, a block and a half
        **{**EXPERT_SIZES, "q_lora_rank": 128, "kv_lora_rank": 128, "qk_rope_head_dim": 64},
        **{"qk_nope_head_dim": 64, "v_head_dim": 64},
    },
    STATEFUL: {**EXPERT_SIZES, **STATE_SIZES, "shared_expert_intermediate_size": 128},
    SEEING: {**GPU_SIZES, **STATE_SIZES, "full_attention_interval": 4},
    "qwen2": GPU_SIZES,
    "qwen3-tied": GPU_SIZES,
    "qwen3_moe": EXPERT_SIZES,
    "glm4_moe": EXPERT_SIZES,
    "minimax_m2": {**EXPERT_SIZES, "intermediate_size": 128, "rotary_dim": 32},
}
NEVER = (
    *("embed_tokens.weight", "lm_head.weight", "norm.weight", ".bias", ".gate.weight", "_bias", "expert_gate.weight"),
    *("in_proj_ba.weight", "in_proj_a.weight", "in_proj_b.weight", "conv1d.weight", "A_log"),
)


FACTORS = (".weight_scale_inv", ".weight_scale")


class Source:
    """A model's weights in bfloat16, in buckets of a few."""

    def __init__(self, directory: Path) -> None:
        expected = expected_tensors(directory)
        whole = [one for one in load_file(directory / "model.safetensors").items() if one[0] in expected]
        self.tensors = [(name, tensor if "correction_bias" in name else tensor.bfloat16()) for name, tensor in whole]

    def named_buckets(self, max_bytes: int) -> Iterator[list[tuple[str, Tensor]]]:
        for start in range(0, len(self.tensors), 7):
            yield self.tensors[start : start + 7]


@pytest.fixture(scope="module", params=KINDS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(request.param, tmp_path_factory.mktemp("models") / request.param, **KINDS[request.param])


def as_bytes(tensor: Tensor) -> list[int]:
    return tensor.contiguous().view(-1).view(torch.uint8).tolist()


@pytest.mark.parametrize("way", FEW_BITS.values(), ids=FEW_BITS)
@pytest.mark.parametrize("elements", [16 * 2**20, 128 * 256], ids=["many at once", "in pieces"])
def test_they_are_a_converted_models_bit_for_bit(
    model: Path, tmp_path: Path, elements: int, way: FewBits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ELEMENTS", elements)
    short = convert(str(model), tmp_path / "short", torch.bfloat16, verify=False).directory
    made = convert(str(short), tmp_path / "made", PRECISIONS[way.word], verify=False).directory
    beside = tuple(begin for begin in families()[shape_of(model).architecture].carried(shape_of(model)))
    wanted = {name: one for name, one in load_file(made / "model.safetensors").items() if not name.startswith(beside)}
    source = Quantised(Source(model), Packing.of(shape_of(model), way))
    found = {name: tensor for bucket in source.named_buckets(1) for name, tensor in bucket}
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape), name
        assert as_bytes(found[name]) == as_bytes(tensor), name


def test_linear_layers_are_in_fp8_with_a_factor_for_each_block_and_nothing_else_is(model: Path) -> None:
    tensors = Source(model).tensors
    found = dict(quantised(tensors, Packing.of(shape_of(model))))
    for name, tensor in tensors:
        if name.endswith(NEVER):
            assert found[name] is tensor
            continue
        rows, columns = tensor.shape
        factors = found[f"{name}_scale_inv"]
        assert found[name].dtype == torch.float8_e4m3fn
        assert (factors.dtype, factors.shape) == (torch.float32, (-(-rows // 128), columns // 128))


@pytest.mark.parametrize(("kind", "ranks"), [("qwen3", 2), ("llama", 4)])
def test_a_ranks_part_has_its_own_blocks(kind: str, ranks: int, tmp_path: Path) -> None:
    """Where the sizes are accepted, what an engine's rank cuts out is what would be made of its part alone."""
    sizes = {"hidden_size": 512, "head_dim": 128, "intermediate_size": 512, "num_hidden_layers": 1}
    directory = tiny_model(kind, tmp_path / "m", **sizes, num_attention_heads=4, num_key_value_heads=2)
    shape = shape_of(directory)
    assert uncut_blocks(shape, Cut(ranks, 1), 128) is None
    in_eighths = uncut_blocks(shape, Cut(8, 8), 128)
    assert in_eighths is not None
    assert "self_attn" in in_eighths.name
    grouped = uncut_blocks(shape, Cut(8, 8, attention_groups=8), 128)
    assert grouped is not None
    assert "mlp" in grouped.name, "attention is whole in each group"
    for name, weight in load_file(directory / "model.safetensors").items():
        if name in Packing.of(shape).names:
            dim = 1 if name.endswith(("o_proj.weight", "down_proj.weight")) else 0
            of_ranks = max(1, min(ranks, weight.shape[dim] // 128))  # of fewer groups than ranks each has one
            whole = PUBLISHED.make(weight)
            for rank, part in enumerate(weight.chunk(of_ranks, dim)):
                own = PUBLISHED.make(part.contiguous())
                for end, made in whole.items():
                    assert as_bytes(own[end]) == as_bytes(made.chunk(of_ranks, dim)[rank]), (name, rank)


class Engine:
    """A client of an engine that computes in few bits, and takes everything."""

    def __init__(self, model_dir: Path, way: FewBits) -> None:
        self.facts = SimpleNamespace(model_dir=str(model_dir), needs_weight_session=False, few_bits=way.word)

    def capabilities(self) -> Any:
        return self.facts

    def post_checked(self, *_: Any, **__: Any) -> None:
        """Every request is answered."""

    def forget_prefixes(self) -> None:
        """There are none."""

    def weight_version(self) -> str:
        return "v1"


@pytest.mark.parametrize("way", FEW_BITS.values(), ids=FEW_BITS)
def test_an_engine_in_few_bits_is_sent_all_numbers_and_factors_and_no_whole_weight(model: Path, way: FewBits) -> None:
    client: Any = Engine(model, way)
    tensors = quantised(Source(model).tensors, Packing.of(shape_of(model), way))
    update = WeightUpdate(client, "v1")
    update.begin()
    update.check([one for one in tensors if not one[0].endswith(FACTORS)])
    with pytest.raises(WeightsRefused, match=r"were not sent: .*\.weight_scale"):
        update.end()
    update = WeightUpdate(client, "v1")
    update.begin()
    update.check(tensors)
    update.end()
    name = next(name for name, tensor in tensors if str(tensor.dtype) == f"torch.{way.scheme.dtype}")
    update = WeightUpdate(client, "v1")
    update.begin()
    with pytest.raises(WeightsRefused, match=f"{name} has dtype bfloat16, wanted one of {way.scheme.dtype}"):
        update.check([(name, dict(Source(model).tensors)[name])])
    client.facts.few_bits = ""
    update = WeightUpdate(client, "v1")
    update.begin()
    with pytest.raises(WeightsRefused, match=f"{name} has dtype {way.scheme.dtype}, wanted one of float32, bfloat16"):
        update.check([(name, dict(tensors)[name])])


class Layer(nn.Module):
    """As an engine in few bits has two projections: fused, with the factors beside them."""

    def __init__(self, way: FewBits) -> None:
        super().__init__()
        (_, factors), numbers = (
            [part.shape for part in way.scheme.make(torch.ones(512, 256)).values()],
            way.scheme.dtype,
        )
        self.fused = nn.Parameter(torch.zeros(512, 256).to(getattr(torch, numbers)), requires_grad=False)
        self.factors = nn.Parameter(torch.zeros(factors), requires_grad=False)
        self.num_loads = 0

    def load_weights(self, tensors: list[tuple[str, Tensor]]) -> None:
        self.num_loads += 1
        for name, tensor in tensors:
            home = self.factors if name.endswith(FACTORS) else self.fused
            height = home.shape[0] // 2
            home.data.narrow(0, 0 if name.startswith("gate") else height, height).copy_(tensor)


@pytest.mark.parametrize("way", FEW_BITS.values(), ids=FEW_BITS)
def test_an_engine_takes_the_second_sync_by_the_copies_of_the_first(
    way: FewBits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path, str(ENGINE_SITE)])
    from ebbtide_weight_replay import load

    packing, layer, bucket = Packing(("gate.weight", "up.weight"), (), way), Layer(way), Bucket()
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        whole = [(name, torch.randn(256, 256, generator=generator).bfloat16()) for name in packing.names]
        tensors = quantised(whole, packing)
        bucket.fill(tensors)
        assert [as_bytes(view) for _, view in bucket.views()] == [as_bytes(tensor) for _, tensor in tensors]
        load(layer, [(bucket.layout(), bucket.contents())])
        wanted = Layer(way)
        wanted.load_weights(tensors)
        assert as_bytes(layer.fused) == as_bytes(wanted.fused)
        assert torch.equal(layer.factors, wanted.factors)
    assert layer.num_loads == 1


@pytest.mark.parametrize("way", FEW_BITS.values(), ids=FEW_BITS)
def test_files_say_in_which_way_they_are_quantised(
    model: Path, tmp_path: Path, way: FewBits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine that reads them for a proof finds the same weights as in its own model's directory."""
    found = []

    def read(client: Any, directory: Path, version: str) -> None:
        config = json.loads((directory / "config.json").read_text())["quantization_config"]
        assert config["quant_method"] == {"fp8": "fp8", "int8": "compressed-tensors"}[way.word]
        assert config.get("weight_block_size") == ([128, 128] if way.word == "fp8" else None)
        found.append(expected_tensors(directory))

    monkeypatch.setattr(weight_files, "update_from_disk", read)
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    try:
        engines: Any = FakeEngines({"a": "there"})
        packing = Packing.of(shape_of(model), way)
        files = WeightFiles(engines, tmp_path / "sync", model, packing)
        assert WeightSync(Quantised(Source(model), packing), engines, [files]).push("step1")
    finally:
        dist.destroy_process_group()
    assert found == [expected_tensors(model)]
