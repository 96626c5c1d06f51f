"""What engines can have linear layers in: each an entry of `FEW_BITS`, by its word in `placement.engine_weights`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any

from core.pretrained.quantised.fp8_blocks import Fp8Blocks
from core.pretrained.quantised.int8_rows import Int8Rows
from core.pretrained.quantised.weight import Making

PUBLISHED = Fp8Blocks(128, 128)  # the blocks that all publishers have, and engines have kernels for


@dataclass(frozen=True)
class FewBits:
    """A way in which engines have them, and what it wants.

    Attributes:
        word: as run files, messages and the engines' environment have it.
        scheme: what stands for a weight.
        grain: what divides rows and columns on each of an engine's ranks, and why.
        least, below: compute capabilities of the GPUs, from this one to before that.
        cards: these GPUs, in words.
        on_cpus: whether engines on CPUs have it, by stand-ins for the kernels.
        latent, states: whether models have it whose attention is latent, whose layers have states.
        options: what SGLang is told on GPUs so that it keeps weights as they are loaded.
    """

    word: str
    scheme: Making
    grain: int
    why_grain: str
    least: float
    below: float
    cards: str
    on_cpus: bool
    latent: bool
    states: bool
    options: Mapping[str, Any] = field(default_factory=dict)


FEW_BITS = {
    one.word: one
    for one in (
        FewBits(
            "fp8",
            PUBLISHED,
            grain=PUBLISHED.rows,
            why_grain="as a block has a factor of its own",
            least=8.9,  # below it SGLang rearranges loaded weights for another kernel: no sync would fit
            below=inf,
            cards="GPUs of compute capability 8.9 or more, whose engines have kernels for it",
            on_cpus=False,
            latent=True,
            states=True,
            options={"fp8_gemm_runner_backend": "triton"},
        ),
        FewBits(
            "int8",
            Int8Rows(),
            grain=16,
            why_grain="as SGLang's kernel wants them",
            least=8.0,
            below=10.0,  # from there on the kernel is missing (sgl_kernel's int8_scaled_mm)
            cards="GPUs of compute capability 8.0 to 9.0 (A100, L40, H100), whose engines have a kernel for it",
            on_cpus=True,
            latent=False,
            states=False,
        ),
    )
}


def word_of(settings: Mapping[str, Any] | None) -> str:
    """The word for what an engine was told by its `quantization_config`; empty: none of these."""
    method = (settings or {}).get("quant_method")
    told = {one.scheme.engine_settings(())["quant_method"]: word for word, one in FEW_BITS.items()}
    return told.get(method, "")
