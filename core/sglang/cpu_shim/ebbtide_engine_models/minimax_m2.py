"""MiniMax-M2. SGLang computes its norms of query and key by kernels for GPUs, or by a package that is missing here."""

from typing import Any

from sglang.srt.models import minimax_m2
from torch import Tensor


def _in_torch(norms: Any, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
    """Query and key, each normed by the module that holds its weight."""
    return norms._q_norm(query), norms._k_norm(key)


for way in ("_forward_naive", "_forward_cpu"):  # the second where the CPU has matrix units
    setattr(minimax_m2.MiniMaxM2QKRMSNorm, way, _in_torch)

EntryClass = [minimax_m2.MiniMaxM2ForCausalLM]
