"""The server's command line and environment."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import modelcfg
from core.pretrained.few_bits import FEW_BITS
from core.pretrained.packing import Packing
from core.sglang.asked_config import not_said
from core.sglang.back_ends import BackEnds
from core.sglang.launch import CPU_SHIM, ENGINE_SITE, EngineSpec, OverNodes, command, environment
from modelcfg.families import families
from tests.support.tiny_models import SEEING, SEEING_EXPERTS, STATEFUL, tiny_model

CPU = EngineSpec("e", Path("/models/m"), "cpu", "float32", "127.0.0.1", 4242, random_seed=7, api_key="secret")
CUDA = replace(CPU, device="cuda", dtype="bfloat16", memory_fraction=0.4, tensor_parallel=2, max_running_requests=128)


def test_cpu_command() -> None:
    assert " ".join(command(CPU, "python")) == (
        "python -m ebbtide_engine_server --model-path /models/m --host 127.0.0.1 --port 4242 --device cpu "
        "--dtype float32 --tp-size 1 --max-running-requests 64 --random-seed 7 "
        "--sampling-backend pytorch --grammar-backend none --custom-weight-loader ebbtide_weight_replay.load "
        "--skip-tokenizer-init --sleep-on-idle --attention-backend torch_native --mem-fraction-static 0.8 "
        "--max-total-tokens 16384 --disable-cuda-graph"
    )


def test_cuda_command() -> None:
    assert " ".join(command(replace(CUDA, deterministic=True, context_length=2048), "python")) == (
        "python -m ebbtide_engine_server --model-path /models/m --host 127.0.0.1 --port 4242 --device cuda "
        "--dtype bfloat16 --tp-size 2 --max-running-requests 128 --random-seed 7 "
        "--sampling-backend pytorch --grammar-backend none --custom-weight-loader ebbtide_weight_replay.load "
        "--context-length 2048 --skip-tokenizer-init --sleep-on-idle --attention-backend triton "
        "--mem-fraction-static 0.4 --cuda-graph-max-bs-decode 128 --enable-memory-saver --skip-server-warmup "
        "--disable-prefill-cuda-graph --enable-deterministic-inference"
    )


def test_programs_of_an_engine_over_nodes_differ_in_their_place_alone() -> None:
    first, arm = (replace(CUDA, over_nodes=OverNodes(2, rank, "10.0.0.1:20001")) for rank in (0, 1))
    for rank, spec in enumerate((first, arm)):
        assert f"--nnodes 2 --node-rank {rank} --dist-init-addr 10.0.0.1:20001" in " ".join(command(spec, "python"))
        assert environment(spec, {})["SGLANG_HOST_IP"] == "127.0.0.1"
    assert len([1 for one, other in zip(command(first), command(arm), strict=True) if one != other]) == 1
    assert "SGLANG_HOST_IP" not in environment(CUDA, {})


def test_cuda_weights_of_experts_stay_as_they_are_loaded() -> None:
    assert "--moe-runner-backend triton" in " ".join(command(replace(CUDA, has_experts=True)))


def test_an_engine_whose_files_are_quantised_reads_no_weights_from_them() -> None:
    words = command(replace(CUDA, quantised=True, options={"json_model_override_args": '{"rope_theta": 5.0}'}))
    assert words[words.index("--load-format") + 1] == "dummy"
    assert json.loads(words[words.index("--json-model-override-args") + 1]) == {
        "rope_theta": 5.0,
        "quantization_config": None,
        "compression_config": None,
    }


def test_an_engine_in_fp8_is_told_so_reads_no_weights_and_keeps_them_as_they_are_loaded() -> None:
    packing = Packing.of(modelcfg.load("qwen3-30b-a3b"))
    spec = replace(CUDA, packing=packing, has_experts=True)
    words = command(spec)
    assert words[words.index("--load-format") + 1] == "dummy"
    assert words[words.index("--fp8-gemm-backend") + 1] == words[words.index("--moe-runner-backend") + 1] == "triton"
    told = json.loads(words[words.index("--json-model-override-args") + 1])
    assert told["compression_config"] is None
    assert told["quantization_config"] == {
        **{"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [128, 128]},
        "modules_to_not_convert": [*(f"model.layers.{layer}.mlp.gate" for layer in range(48)), "lm_head"],
    }
    assert environment(spec, {})["EBBTIDE_ENGINE_WEIGHTS"] == "fp8"
    assert "EBBTIDE_ENGINE_WEIGHTS" not in environment(CUDA, {})
    chosen = command(replace(spec, options={"fp8_gemm_runner_backend": "deep_gemm"}))
    assert chosen[chosen.index("--fp8-gemm-backend") + 1] == "deep_gemm"


def test_an_engine_in_int8_is_told_so_by_patterns_that_other_layers_do_not_fit() -> None:
    spec = replace(CUDA, packing=Packing.of(modelcfg.load("qwen3-30b-a3b"), FEW_BITS["int8"]), has_experts=True)
    words = command(spec)
    assert words[words.index("--load-format") + 1] == "dummy"
    assert "--fp8-gemm-backend" not in words
    settings = json.loads(words[words.index("--json-model-override-args") + 1])["quantization_config"]
    assert settings["quant_method"] == "w8a8_int8"
    patterns = [pattern.removeprefix("re:") for pattern in settings["ignore"]]

    def ignored(name: str) -> bool:
        return any(re.match(pattern, name) for pattern in patterns)

    assert len(patterns) == 48
    assert ignored("model.layers.3.mlp.gate")
    others = ("mlp.gate_up_proj", "mlp.experts", "self_attn.qkv_proj")
    assert not any(ignored(f"model.layers.3.{name}") for name in others)
    assert not ignored("lm_head")
    assert environment(spec, {})["EBBTIDE_ENGINE_WEIGHTS"] == "int8"


def test_an_engine_of_layers_with_windows_is_told_to_count_their_keys() -> None:
    assert environment(replace(CUDA, has_windows=True), {})["EBBTIDE_TRITON_WINDOWS"] == "1"
    assert "EBBTIDE_TRITON_WINDOWS" not in environment(CUDA, {})


def test_an_engine_with_triton_shares_out_keys_by_our_rule_and_others_by_theirs() -> None:
    assert environment(CUDA, {})["EBBTIDE_TRITON_BLOCKS"] == "1"
    words = command(CUDA)
    assert words[words.index("--triton-attention-num-kv-splits") + 1] == "32"
    for other in (replace(CUDA, deterministic=True), replace(CUDA, back_ends=BackEnds("fa3"))):
        assert "EBBTIDE_TRITON_BLOCKS" not in environment(other, {})
        assert "--triton-attention-num-kv-splits" not in command(other)


def test_beyond_the_graphs_samples_have_no_room_for_more_blocks() -> None:
    """Their parts would be as large as the samples are many; a run file's own number counts."""
    many = replace(CUDA, max_running_requests=257)
    assert "--triton-attention-num-kv-splits" not in command(many)
    assert environment(many, {})["EBBTIDE_TRITON_BLOCKS"] == "1"
    words = command(replace(many, options={"triton_attention_num_kv_splits": 16}))
    assert words[words.index("--triton-attention-num-kv-splits") + 1] == "16"


def test_groups_of_ranks_each_have_their_share_of_the_requests() -> None:
    """CUDA graphs are for those, and our plugin is told."""
    grouped = replace(CUDA, options={"enable_dp_attention": True, "dp_size": 2})
    words = command(grouped)
    assert words[words.index("--cuda-graph-max-bs-decode") + 1] == "64"
    assert words[words.index("--max-running-requests") + 1] == "128"
    assert words[words.index("--dp-size") + 1] == "2"
    assert environment(grouped, {})["EBBTIDE_ATTENTION_GROUPS"] == "1"
    assert "EBBTIDE_ATTENTION_GROUPS" not in environment(CUDA, {})


@pytest.mark.parametrize("given", [{"rope_theta": 5.0}, '{"rope_theta": 5.0}'])
def test_what_sglang_asks_of_config_json_is_told_beside_what_the_run_file_overrides(given: object) -> None:
    asked = {"full_attention_interval": 4}
    words = command(replace(CUDA, config=asked, options={"json_model_override_args": given}))
    assert json.loads(words[words.index("--json-model-override-args") + 1]) == {**asked, "rope_theta": 5.0}
    assert "--load-format" not in words
    assert "--json-model-override-args" not in command(CUDA)


def test_command_line_holds_no_secret() -> None:
    assert "secret" not in " ".join(command(CPU))
    assert environment(CPU, {})["EBBTIDE_ENGINE_API_KEY"] == "secret"


def test_cpu_environment() -> None:
    assert environment(replace(CPU, num_threads=3, api_key=None), {}) == {
        "PYTHONPATH": f"{ENGINE_SITE}:{CPU_SHIM}",
        "PYTHONUNBUFFERED": "1",
        "PYTHONWARNINGS": "ignore:Duplicate Operation ID:UserWarning",
        "EBBTIDE_DIE_WITH_PARENT": "1",
        "EBBTIDE_HIDE_MODULES": "megatron,scipy,mistral_common",
        "EBBTIDE_ENGINE_API_KEY": "",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "OMP_NUM_THREADS": "3",
        "GOMP_SPINCOUNT": "1000",
        "EBBTIDE_CPU_ENGINE": "1",
        "SGLANG_USE_CPU_ENGINE": "1",
        "SGLANG_EXTERNAL_MODEL_PACKAGE": "ebbtide_engine_models",
        "TORCH_COMPILE_DISABLE": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }


def test_environment_keeps_the_users_and_drops_the_trainers() -> None:
    base = {"PATH": "/bin", "PYTHONPATH": "/code::/more", "RANK": "3", "MASTER_PORT": "1", "TORCHELASTIC_RUN_ID": "x"}
    made = environment(CUDA, base | {"CUDA_VISIBLE_DEVICES": "5"})
    assert made["PATH"] == "/bin"
    assert made["PYTHONPATH"] == f"{ENGINE_SITE}:/code:/more"
    assert made["CUDA_VISIBLE_DEVICES"] == "5"
    assert not {"RANK", "MASTER_PORT", "TORCHELASTIC_RUN_ID", "EBBTIDE_CPU_ENGINE"} & set(made)
    assert environment(CUDA, made)["PYTHONPATH"] == made["PYTHONPATH"]  # applied twice: no longer path


@pytest.mark.parametrize("own", [{"GOMP_SPINCOUNT": "5"}, {"OMP_WAIT_POLICY": "ACTIVE"}], ids=["count", "policy"])
def test_how_the_users_threads_wait_is_left_alone(own: dict[str, str]) -> None:
    made = environment(CPU, own)
    assert {key: made[key] for key in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY") if key in made} == own


def test_tensor_parallel_on_a_cpu_gets_a_core_each() -> None:
    assert environment(replace(CPU, tensor_parallel=2), {})["SGLANG_CPU_OMP_THREADS_BIND"] == "0|1"


def test_adapter_imports_neither_torch_nor_sglang() -> None:
    code = "import sys, core.sglang.client, core.sglang.launch; print({'torch', 'sglang'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


SGLANG_READS = """
import json, sys
from sglang.srt.utils.hf_transformers.config import get_config
found = []
for directory, told in json.loads(sys.argv[1]):
    config = get_config(directory, trust_remote_code=False, model_override_args=told)
    text = getattr(config, "text_config", config)
    found.append([text.linear_layer_ids, text.vocab_size, getattr(config, "language_model_only", None)])
print(json.dumps(found))
"""


def test_sglang_has_the_same_layers_with_states_of_files_that_transformers_writes(tmp_path: Path) -> None:
    kinds = (STATEFUL, SEEING, SEEING_EXPERTS)
    written = [tiny_model(kind, tmp_path / kind) for kind in kinds]
    shapes = [modelcfg.from_hf(json.loads((folder / "config.json").read_text())) for folder in written]
    asked = [families()[shape.architecture].engine_config(shape) for shape in shapes]
    told = [[str(folder), not_said(one, folder)] for folder, one in zip(written, asked, strict=True)]
    words = [sys.executable, "-c", SGLANG_READS, json.dumps(told)]
    found = subprocess.run(words, env=environment(CPU, os.environ), capture_output=True, text=True, timeout=300)
    assert found.returncode == 0, found.stderr[-2000:]
    states = [[layer for layer in range(shape.num_layers) if shape.has_state(layer)] for shape in shapes]
    only_text = (None, True, True)
    assert json.loads(found.stdout.splitlines()[-1]) == [
        [layers, shape.vocab_size, only] for layers, shape, only in zip(states, shapes, only_text, strict=True)
    ]


def test_an_engine_is_told_what_config_json_does_not_say(tmp_path: Path) -> None:
    asked = {"only": True, "text": {"every": 4, "tied": False}}
    assert not_said(asked, tmp_path) == asked, "there is no file"
    for said, told in (
        ({"only": False, "text": {"every": 4, "tied": False}}, {"only": True}),
        ({"only": True, "text": {"every": 3, "tied": False}}, {"text": {"every": 4}}),
        ({"text": None, "only": True}, {"text": {"every": 4, "tied": False}}),
    ):
        (tmp_path / "config.json").write_text(json.dumps(said))
        assert not_said(asked, tmp_path) == told
