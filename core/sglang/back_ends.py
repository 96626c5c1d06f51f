"""Kernels that an engine on a GPU computes attention and samples with: the best that its node has, and why.

Which compiled kernels are installed is told by their files: nothing is imported, and no GPU is touched. SGLang's own
defaults are not asked, for they take FlashInfer wherever its package is, and then compile for minutes.
Source: `get_default_attn_backend` and `_is_fa3_supported` of SGLang 0.5.21; jit/env.py and aot.py of FlashInfer 0.6.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.machinery import PathFinder
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from core.sglang.attention_groups import SWITCH
from modelcfg import ModelShape

FA3, FLASHINFER, TRITON = "fa3", "flashinfer", "triton"
HOPPER = 9
FLASHINFER_MAJORS = (8, 9)  # of compute capabilities; beyond, it fetches further kernels from the network
FA3_MAX_HEAD, FA3_HEAD_STEP = 256, 8
# with these options in a run file the kernels would have to do what was only tried with triton
TRIED_WITH_TRITON = ("kv_cache_dtype", "page_size", "speculative_", "dllm_", SWITCH, "attn_cp_size")
MODULE = re.compile(
    r"batch_(decode|prefill)_with_kv_cache_dtype_q_bf16_dtype_kv_bf16_dtype_o_bf16_.*"
    r"_head_dim_qk_(\d+)_head_dim_vo_(\d+)_.*_use_swa_False_use_logits_cap_False"
)


@dataclass(frozen=True)
class BackEnds:
    """What an engine computes with, by SGLang's names, and the reason in words."""

    attention: str = TRITON
    sampling: str = "pytorch"
    because: str = "nothing is known of the node"

    def __str__(self) -> str:
        return f"{self.attention} attention, {self.sampling} sampling: {self.because}"


@dataclass(frozen=True)
class Kernels:
    """Compiled kernels that a node has.

    Attributes:
        fa3: FlashAttention 3, of SGLang's own package.
        flashinfer_heads: channels of a head for which FlashInfer's attention need not be compiled; bfloat16.
        flashinfer_sampling: whether its samplers need not be, either.
        no_flashinfer: why there are none; empty: there are some.
    """

    fa3: bool = False
    flashinfer_heads: frozenset[int] = frozenset()
    flashinfer_sampling: bool = False
    no_flashinfer: str = "FlashInfer is not installed"


def choose_back_ends(
    shape: ModelShape,
    dtype: str,
    *,
    deterministic: bool,
    options: Mapping[str, Any],
    capability: float | None,
    kernels: Kernels,
) -> BackEnds:
    """FlashAttention 3, else FlashInfer where its kernels are compiled, else triton. Pure.

    Args:
        dtype: of the engine.
        deterministic: the run file asks for samples that do not depend on the rest of the batch.
        options: SGLang's, of the run file; `attention_backend` is taken as it is.
        capability: the least compute capability of the engine's GPUs; None: not known.
    """
    if "attention_backend" in options:
        told = options["attention_backend"]
        return BackEnds(told or "SGLang's own", because="placement.engine_options.attention_backend says so")
    if obstacle := _needs_triton(shape, dtype, deterministic, options):
        return BackEnds(because=obstacle)
    if capability is None:
        return BackEnds(because="the compute capability of its GPUs is not known")
    not_fa3 = _not_fa3(shape, capability, kernels)
    if not not_fa3:
        return BackEnds(FA3, because=f"compute capability {capability}, and sgl_kernel has FlashAttention 3")
    not_flashinfer = _not_flashinfer(shape, capability, kernels)
    if not_flashinfer:
        return BackEnds(because=f"{not_fa3}; {not_flashinfer}")
    sampling = FLASHINFER if kernels.flashinfer_sampling else "pytorch"
    return BackEnds(FLASHINFER, sampling, f"its kernels are compiled ({not_fa3})")


def _needs_triton(shape: ModelShape, dtype: str, deterministic: bool, options: Mapping[str, Any]) -> str:
    """What was only tried with triton, or works with nothing else; empty: nothing."""
    if shape.latent is not None:
        return "latent attention was tried with no other"
    if shape.delta is not None:
        return "layers with a state were tried with no other"
    if dtype != "bfloat16":
        return f"other kernels do not compute in {dtype}"
    if deterministic:
        return "rollout.deterministic was tried with no other"
    touched = [name for name in options if name.startswith(TRIED_WITH_TRITON)]
    return f"placement.engine_options.{touched[0]} was tried with no other" if touched else ""


def _not_fa3(shape: ModelShape, capability: float, kernels: Kernels) -> str:
    """Why FlashAttention 3 cannot be taken; empty: it can."""
    if int(capability) != HOPPER:
        return f"compute capability {capability}, where FlashAttention 3 wants 9.x"
    if not kernels.fa3:
        return "sgl_kernel without FlashAttention 3"
    if shape.head_dim > FA3_MAX_HEAD or shape.head_dim % FA3_HEAD_STEP:
        return f"heads of {shape.head_dim} channels, where FlashAttention 3 wants a multiple of 8 up to 256"
    return ""


def _not_flashinfer(shape: ModelShape, capability: float, kernels: Kernels) -> str:
    """Why FlashInfer cannot be taken without compiling; empty: it can."""
    if shape.sinks:
        return "attention with sinks, for which SGLang refuses FlashInfer"
    if int(capability) not in FLASHINFER_MAJORS:
        return "FlashInfer was taken for 8.x and 9.x only"
    if kernels.no_flashinfer:
        return kernels.no_flashinfer
    if shape.head_dim not in kernels.flashinfer_heads:
        known = ", ".join(map(str, sorted(kernels.flashinfer_heads))) or "none"
        return f"heads of {shape.head_dim} channels, where FlashInfer's compiled kernels know {known}"
    return ""


def installed_kernels() -> Kernels:
    """What this node's Python has."""
    fa3 = any(any(folder.glob("flash_ops*.so")) for folder in _folders("sgl_kernel"))
    if reason := _no_flashinfer():
        return Kernels(fa3, no_flashinfer=reason)
    names = {file.stem for folder in _folders("flashinfer_jit_cache") for file in folder.glob("jit_cache/*/*.so")}
    found = [match for name in names if (match := MODULE.match(name))]
    heads = {
        kind: {int(one[2]) for one in found if one[1] == kind and one[2] == one[3]} for kind in ("decode", "prefill")
    }
    return Kernels(fa3, frozenset(heads["decode"] & heads["prefill"]), "sampling" in names, "")


def _no_flashinfer() -> str:
    """Why FlashInfer would compile its kernels, or not start; empty: it would start with compiled ones."""
    for package, module in (("flashinfer-python", "flashinfer"), ("flashinfer-jit-cache", "flashinfer_jit_cache")):
        if not any(_folders(module)):
            return f"no {package}"
    try:
        package, compiled = version("flashinfer-python"), version("flashinfer-jit-cache")
    except PackageNotFoundError as error:
        return f"no {error.name}"
    # FlashInfer refuses to start with another's kernels; those name their CUDA behind its version
    return "" if compiled.startswith(package) else f"flashinfer-jit-cache {compiled} for flashinfer-python {package}"


def _folders(module: str) -> Iterator[Path]:
    """The folders of a package's files; nothing of it is imported."""
    spec = PathFinder.find_spec(module)
    yield from map(Path, (spec.submodule_search_locations or []) if spec else [])
