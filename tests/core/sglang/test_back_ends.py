"""Which kernels an engine is given, on nodes that are made up."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import modelcfg
from core.sglang import back_ends
from core.sglang.back_ends import BackEnds, Kernels, choose_back_ends, installed_kernels
from core.sglang.launch import EngineSpec, command, environment

QWEN = modelcfg.load("qwen3-4b")  # heads of 128 channels
STATEFUL = "qwen3-next-80b-a3b"
NOTHING = Kernels()
FA3_ONLY = Kernels(fa3=True)
FLASHINFER_ONLY = Kernels(flashinfer_heads=frozenset({64, 128}), flashinfer_sampling=True, no_flashinfer="")
BOTH = replace(FLASHINFER_ONLY, fa3=True)


def chosen(capability: float | None, kernels: Kernels, **changes: Any) -> BackEnds:
    asked: dict[str, Any] = {"shape": QWEN, "dtype": "bfloat16", "deterministic": False, "options": {}, **changes}
    shape, dtype = asked.pop("shape"), asked.pop("dtype")
    return choose_back_ends(shape, dtype, capability=capability, kernels=kernels, **asked)


@pytest.mark.parametrize(
    ("capability", "kernels", "attention", "sampling", "because"),
    [
        (9.0, BOTH, "fa3", "pytorch", "compute capability 9.0, and sgl_kernel has FlashAttention 3"),
        (9.0, FA3_ONLY, "fa3", "pytorch", "compute capability 9.0"),
        (9.0, FLASHINFER_ONLY, "flashinfer", "flashinfer", "sgl_kernel without FlashAttention 3"),
        (9.0, NOTHING, "triton", "pytorch", "sgl_kernel without FlashAttention 3; FlashInfer is not installed"),
        (8.0, BOTH, "flashinfer", "flashinfer", "where FlashAttention 3 wants 9.x"),
        (8.9, replace(BOTH, flashinfer_sampling=False), "flashinfer", "pytorch", "compute capability 8.9"),
        (8.0, FA3_ONLY, "triton", "pytorch", "where FlashAttention 3 wants 9.x; FlashInfer is not installed"),
        (10.0, BOTH, "triton", "pytorch", "8.x and 9.x only"),
        (None, BOTH, "triton", "pytorch", "the compute capability of its GPUs is not known"),
    ],
    ids=["H100", "without FlashInfer", "without FA3", "neither", "A100", "L40S", "A100 bare", "B200", "MIG or AMD"],
)
def test_the_first_that_the_node_has(
    capability: float | None, kernels: Kernels, attention: str, sampling: str, because: str
) -> None:
    found = chosen(capability, kernels)
    assert (found.attention, found.sampling) == (attention, sampling)
    assert because in found.because


@pytest.mark.parametrize(
    ("changes", "because"),
    [
        ({"shape": modelcfg.load("moonlight-16b-a3b")}, "latent attention"),
        ({"shape": modelcfg.load(STATEFUL)}, "layers with a state"),
        ({"dtype": "float32"}, "do not compute in float32"),
        ({"deterministic": True}, "rollout.deterministic"),
        ({"options": {"kv_cache_dtype": "fp8_e4m3"}}, "placement.engine_options.kv_cache_dtype"),
        ({"options": {"speculative_algorithm": "EAGLE"}}, "placement.engine_options.speculative_algorithm"),
    ],
    ids=["latent", "states", "float32", "deterministic", "cache in fp8", "speculative"],
)
def test_what_was_tried_with_triton_alone_keeps_it(changes: dict[str, Any], because: str) -> None:
    found = chosen(9.0, BOTH, **changes)
    assert (found.attention, found.sampling) == ("triton", "pytorch")
    assert because in found.because


@pytest.mark.parametrize(("channels", "attention"), [(72, "fa3"), (100, "triton"), (512, "triton")])
def test_heads_of_other_sizes(channels: int, attention: str) -> None:
    shape = QWEN.model_copy(update={"head_dim": channels})
    found = chosen(9.0, BOTH, shape=shape)
    assert found.attention == attention
    assert attention == "fa3" or f"heads of {channels} channels" in found.because


def test_the_run_file_overrules() -> None:
    for told in ("triton", "flashinfer", None):
        found = chosen(9.0, BOTH, options={"attention_backend": told})
        assert found.attention == (told or "SGLang's own")
        assert "placement.engine_options.attention_backend" in found.because
    spec = EngineSpec(
        *("e", Path("/m"), "cuda", "bfloat16", "h", 1),
        back_ends=chosen(9.0, BOTH, options={"attention_backend": "triton"}),
        options={"attention_backend": "triton"},
    )
    assert "--attention-backend triton" in " ".join(command(spec))
    nobody = {"attention_backend": None}
    left = replace(spec, back_ends=chosen(9.0, BOTH, options=nobody), options=nobody)
    assert "--attention-backend" not in command(left)


@pytest.mark.parametrize(("kernels", "flashinfer"), [(FA3_ONLY, False), (FLASHINFER_ONLY, True), (NOTHING, False)])
def test_an_engine_gets_what_was_chosen(kernels: Kernels, flashinfer: bool) -> None:
    made = chosen(9.0, kernels)
    spec = EngineSpec("e", Path("/m"), "cuda", "bfloat16", "h", 1, back_ends=made)
    line = " ".join(command(spec))
    assert f"--attention-backend {made.attention}" in line
    assert f"--sampling-backend {made.sampling}" in line
    assert ("SGLANG_IS_FLASHINFER_AVAILABLE" not in environment(spec, {})) == flashinfer


def test_ranks_of_an_engine_may_have_unlike_memory_beside_trainers() -> None:
    alone = EngineSpec("e", Path("/m"), "cuda", "bfloat16", "h", 1)
    check = "SGLANG_ENABLE_TP_MEMORY_INBALANCE_CHECK"
    assert check not in environment(alone, {})
    assert environment(replace(alone, tensor_parallel=2), {})[check] == "false"


def module(kind: str, channels: int, values: int, dtype: str = "bf16") -> str:
    """A compiled kernel's name, as FlashInfer 0.6 makes it."""
    types = f"dtype_q_{dtype}_dtype_kv_{dtype}_dtype_o_{dtype}_dtype_idx_i32"
    end = "_f16qk_False" if kind == "prefill" else ""
    return (
        f"batch_{kind}_with_kv_cache_{types}_head_dim_qk_{channels}_head_dim_vo_{values}_posenc_0_use_swa_False_"
        f"use_logits_cap_False{end}"
    )


def install(folder: Path, package: str, release: str, files: tuple[str, ...] = ()) -> None:
    """Files of a package as pip leaves them."""
    name = {"flashinfer-python": "flashinfer"}.get(package, package.replace("-", "_"))
    for file in ("__init__.py", *files):
        (folder / name / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / name / file).write_text("raise RuntimeError('imported')")
    about = folder / f"{package.replace('-', '_')}-{release}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Name: {package}\nVersion: {release}\n")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of packages, the only one that Python looks into."""
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    return tmp_path


def test_fa3_is_a_file_of_sgl_kernel(site: Path) -> None:
    install(site, "sgl_kernel", "0.4.5")
    assert installed_kernels() == Kernels(no_flashinfer="no flashinfer-python")
    (site / "sgl_kernel" / "flash_ops.abi3.so").touch()
    assert installed_kernels().fa3


def test_flashinfer_has_the_heads_that_were_compiled(site: Path) -> None:
    install(site, "flashinfer-python", "0.6.14")
    assert installed_kernels().no_flashinfer == "no flashinfer-jit-cache"
    names = [module(kind, size, size) for kind in ("decode", "prefill") for size in (64, 128)]
    names += [module("prefill", 256, 256), module("decode", 512, 512), module("prefill", 192, 128), "sampling"]
    names += [module(kind, 96, 96, "f16") for kind in ("decode", "prefill")]
    install(site, "flashinfer-jit-cache", "0.6.14+cu130", tuple(f"jit_cache/{name}/{name}.so" for name in names))
    assert installed_kernels() == Kernels(False, frozenset({64, 128}), True, "")


def test_kernels_of_another_flashinfer_would_not_start(site: Path) -> None:
    install(site, "flashinfer-python", "0.6.18")
    install(site, "flashinfer-jit-cache", "0.6.14+cu130")
    assert installed_kernels().no_flashinfer == "flashinfer-jit-cache 0.6.14+cu130 for flashinfer-python 0.6.18"


def test_nothing_is_imported_to_look() -> None:
    code = f"import sys, {back_ends.__name__} as b; b.installed_kernels(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not {"torch", "sglang", "flashinfer", "sgl_kernel"} & set(done.stdout.split())
