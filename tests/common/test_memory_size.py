from __future__ import annotations

import pytest

from common.memory_size import gpu_memory_bytes, slurm_memory_bytes
from common.mistake import Wrong


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("100", 100 * 2**20), ("1500K", 1500 * 2**10), ("3M", 3 * 2**20), ("64G", 2**36), ("2T", 2**41)],
)
def test_sizes_of_slurm(text: str, size: int) -> None:
    assert slurm_memory_bytes(text) == size


@pytest.mark.parametrize("text", ["", "64 G", "64GiB", "6.4G", "-1", "G", "٣G"])
def test_what_slurm_would_not_read(text: str) -> None:
    with pytest.raises(Wrong, match="wanted a whole number with K, M, G or T"):
        slurm_memory_bytes(text)


@pytest.mark.parametrize("text", ["80", "0GiB", "80 KiB", "G"])
def test_what_is_no_size_of_a_gpu(text: str) -> None:
    with pytest.raises(Wrong, match="wanted a size such as 80GiB"):
        gpu_memory_bytes(text)
