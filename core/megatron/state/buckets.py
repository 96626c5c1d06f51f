"""Tensors of a weight sync, put together in buckets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from core.megatron.state.gather import NamedTensor

FROM, TO = "q_a_proj", "kv_a_proj_with_mqa"
"""The first and the last of what engines take only at once.

With latent attention SGLang (0.5.16 and 0.5.21) computes both by one parameter. What is given to its loader of the two
in one call goes there; of one alone it keeps nothing and says nothing (`cached_a_proj` in its loaders for DeepSeek).
"""


def in_buckets(tensors: Iterable[NamedTensor], max_bytes: int) -> Iterator[list[NamedTensor]]:
    """Buckets of at most `max_bytes`, in order; what is larger by itself gets one of its own."""
    bucket: list[NamedTensor] = []
    used = 0
    for unit in units(tensors):
        num_bytes = sum(tensor.numel() * tensor.element_size() for _, tensor in unit)
        if bucket and used + num_bytes > max_bytes:
            yield bucket
            bucket, used = [], 0
        bucket += unit
        used += num_bytes
    if bucket:
        yield bucket


def units(tensors: Iterable[NamedTensor]) -> Iterator[list[NamedTensor]]:
    """The tensors one by one, but together what engines take only at once."""
    unit: list[NamedTensor] = []
    for named in tensors:
        unit.append(named)
        if not _is_of(FROM, unit[0]) or _is_of(TO, named):
            yield unit
            unit = []
    if unit:
        yield unit


def _is_of(module: str, named: NamedTensor) -> bool:
    return named[0].endswith(f".{module}.weight")
