"""Host memory that a GPU can copy to and from at link speed: page-locked, and kept for the whole run."""

from __future__ import annotations

import logging
import mmap
import weakref
from contextlib import suppress

import torch
from torch import Tensor

HUGE_PAGE_BYTES = 2 * 2**20

log = logging.getLogger(__name__)


def host_buffer(num_bytes: int, pinned: bool) -> Tensor:
    """[num_bytes] uint8 on the host, all 0.

    torch's own pinned allocator rounds up to a power of two, which wastes up to half of a pool of tens of GiB; this
    one takes what is asked for, in huge pages where the kernel has them, which makes locking it many times faster.
    """
    if not pinned:
        return torch.zeros(num_bytes, dtype=torch.uint8)
    rounded = -(-max(num_bytes, 1) // HUGE_PAGE_BYTES) * HUGE_PAGE_BYTES
    area = mmap.mmap(-1, rounded, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError, AttributeError):
        area.madvise(mmap.MADV_HUGEPAGE)
    buffer = torch.frombuffer(area, dtype=torch.uint8)  # keeps the mapping alive
    buffer.zero_()  # touches every page, with as many threads as torch has
    error = torch.cuda.cudart().cudaHostRegister(  # type: ignore[no-untyped-call]
        buffer.data_ptr(), rounded, 0
    )
    if int(error):
        log.warning("cudaHostRegister of %d bytes failed (%s): using torch's pinned allocator", rounded, error)
        return torch.empty(num_bytes, dtype=torch.uint8, pin_memory=True).zero_()
    # before the addresses are free: CUDA may choose them for device memory, and fails if it has them as host memory
    weakref.finalize(area, _unregister, buffer.data_ptr()).atexit = False
    return buffer[:num_bytes]


def _unregister(address: int) -> None:
    torch.cuda.cudart().cudaHostUnregister(address)  # type: ignore[no-untyped-call]
