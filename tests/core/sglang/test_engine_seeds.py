"""The hash behind per-request seeds, against a word-by-word reference."""

from __future__ import annotations

import sys

import pytest
import torch

from core.sglang.launch import CPU_SHIM

WORD = 0xFFFFFFFF


def reference(*words: int) -> int:
    """MurmurHash3_x86_32 with seed 0 over 32-bit words, as published."""
    state = 0
    for word in words:
        word = word * 0xCC9E2D51 & WORD
        word = (word << 15 | word >> 17) & WORD
        state ^= word * 0x1B873593 & WORD
        state = (state << 13 | state >> 19) & WORD
        state = (state * 5 + 0xE6546B64) & WORD
    state ^= 4 * len(words)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        state = (state ^ state >> shift) * factor & WORD
    return state ^ state >> 16


def test_reference_is_murmur_hash() -> None:
    assert reference(0) == 0x2362F9DE  # published test vectors
    assert reference(0x87654321) == 0xF55B516B


def test_hash_of_every_row_and_column(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(CPU_SHIM))
    seeds, positions, columns = [0, 1, 2**31 - 1, 2**40 + 5], [0, 7, 1000, 3], range(50)
    try:
        from ebbtide_request_seeds import murmur_hash32  # type: ignore[import-not-found]

        found = murmur_hash32(torch.tensor(seeds).to(torch.uint64), torch.tensor(positions), torch.arange(50))
    finally:
        sys.modules.pop("ebbtide_request_seeds", None)
    rows = zip(seeds, positions, strict=True)
    assert found.tolist() == [[reference(s & WORD, s >> 32, p, column) for column in columns] for s, p in rows]
