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

import numpy as np
import numpy.typing as npt
import torch

DEFAULT_SEED = 42  # SGLang's own, for a request without one

_Words = npt.NDArray[np.uint32]
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
    """Add one seed per request; called after SamplingBatchInfo.from_schedule_batch."""
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
    whole = seeds.to(torch.int64).numpy().view(np.uint64)
    states = np.zeros(len(whole), np.uint32)
    for word in (whole, whole >> 32, positions.numpy()):
        states = _mix(states, _scrambled(word.astype(np.uint32)))
    last_word = _scrambled(columns.numpy().astype(np.uint32))
    hashed = torch.empty(len(states), len(last_word), dtype=torch.int64)
    for row, state in zip(hashed.numpy(), states, strict=True):  # one at a time stays in the cache
        row[:] = _finished(_mix(state, last_word))
    return hashed


def _scrambled(word: _Words) -> _Words:
    return _rotated(word * np.uint32(0xCC9E2D51), 15) * np.uint32(0x1B873593)


def _rotated(word: _Words, left: int) -> _Words:
    return word << np.uint32(left) | word >> np.uint32(32 - left)


def _mix(state: _Words | np.uint32, word: _Words) -> _Words:
    """One round."""
    mixed = _rotated(word ^ state, 13)
    mixed *= np.uint32(5)
    mixed += np.uint32(0xE6546B64)
    return mixed


def _finished(mixed: _Words) -> _Words:
    """The avalanche at the end, in place."""
    mixed ^= np.uint32(16)  # length in bytes
    mixed ^= mixed >> np.uint32(16)
    mixed *= np.uint32(0x85EBCA6B)
    mixed ^= mixed >> np.uint32(13)
    mixed *= np.uint32(0xC2B2AE35)
    mixed ^= mixed >> np.uint32(16)
    return mixed


def _define_hash() -> None:
    global _library
    if _library is None:
        _library = torch.library.Library("sgl_kernel", "FRAGMENT")  # type: ignore[no-untyped-call]
        _library.define("murmur_hash32_cpu(Tensor seed, Tensor positions, Tensor col_indices) -> Tensor")  # type: ignore[no-untyped-call]
        _library.impl("murmur_hash32_cpu", murmur_hash32, "CPU")  # type: ignore[no-untyped-call]
