"""A plugin for SGLang (0.5.21) on a CPU: each request is sampled with its own `sampling_seed`.

SGLang honours the seed only with --enable-deterministic-inference, which needs GPU kernels. Its sampler has the parts,
though: given a seed per row it draws token `argmax(logprob + gumbel(hash(seed, position, column)))`, a function of the
row alone. So it takes two things: put the seeds into the batch, and supply the hash (SGLang has it as a GPU kernel).

The entry point in ebbtide_cpu_engine-1.dist-info makes SGLang load this in every process (its documented plugin way).

Columns are token ids, but ranks in the sorted distribution as soon as one request of the batch has top_p or top_k: a
request is reproducible among requests that agree with it on whether those are on.
"""

from __future__ import annotations

import sys
import traceback
from typing import Any

import torch

MASK = 0xFFFFFFFF
DEFAULT_SEED = 42  # SGLang's own, for a request without one

_library: torch.library.Library | None = None


def register() -> None:
    """Called by SGLang in each of its processes. A failure ends the process: samples would silently differ."""
    try:
        from sglang.srt.plugins.hook_registry import HookRegistry, HookType

        _define_hash()
        target = "sglang.srt.sampling.sampling_batch_info.SamplingBatchInfo.from_schedule_batch"
        HookRegistry.register(target, add_seeds, HookType.AFTER)
    except Exception:
        traceback.print_exc()
        sys.exit("ebbtide: this SGLang takes no per-request seeds in the way that 0.5.21 does")


def add_seeds(info: Any, _cls: Any, batch: Any, *_args: Any, **_kwargs: Any) -> Any:
    """After SamplingBatchInfo.from_schedule_batch: one seed per request."""
    seeds = [request.sampling_params.sampling_seed for request in batch.reqs]
    info.sampling_seed = torch.tensor([DEFAULT_SEED if seed is None else seed for seed in seeds], dtype=torch.int64)
    return info


def murmur_hash32(seeds: torch.Tensor, positions: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """MurmurHash3 (32 bits, public domain, Austin Appleby) of the words (seed low, seed high, position, column).

    Args:
        seeds: [B], read as 64 bits.
        positions: [B] position of the token in its sequence.
        columns: [V].
    Returns:
        [B, V] int64 in [0, 2**32).
    """
    seeds = seeds.to(torch.int64)
    row = _mix(torch.zeros_like(seeds), seeds & MASK)
    row = _mix(row, (seeds >> 32) & MASK)
    row = _mix(row, positions.to(torch.int64) & MASK)
    hashed = _mix(row[:, None], (columns.to(torch.int64) & MASK)[None, :])
    hashed ^= 16  # length in bytes
    hashed ^= hashed >> 16
    hashed.mul_(0x85EBCA6B).bitwise_and_(MASK)
    hashed ^= hashed >> 13
    hashed.mul_(0xC2B2AE35).bitwise_and_(MASK)
    hashed ^= hashed >> 16
    return hashed


def _mix(state: torch.Tensor, word: torch.Tensor) -> torch.Tensor:
    """One round; int64 products wrap, their low 32 bits are right."""
    word = (word * 0xCC9E2D51) & MASK
    word = ((word << 15) | (word >> 17)) & MASK
    state = state ^ ((word * 0x1B873593) & MASK)
    state = ((state << 13) | (state >> 19)) & MASK
    return (state * 5 + 0xE6546B64) & MASK


def _define_hash() -> None:
    global _library
    if _library is None:
        _library = torch.library.Library("sgl_kernel", "FRAGMENT")  # type: ignore[no-untyped-call]
        _library.define("murmur_hash32_cpu(Tensor seed, Tensor positions, Tensor col_indices) -> Tensor")  # type: ignore[no-untyped-call]
        _library.impl("murmur_hash32_cpu", murmur_hash32, "CPU")  # type: ignore[no-untyped-call]
