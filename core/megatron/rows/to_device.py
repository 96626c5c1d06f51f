"""Small tensors on their way to the device, without waiting for what the device still has to do."""

from __future__ import annotations

from torch import Tensor


def to_device(tensor: Tensor, device: str) -> Tensor:
    """A CPU tensor on `device`.

    A plain copy to a GPU is made in its turn, and the host waits for it: for all that was queued before. From
    page-locked memory the copy is queued as well, and the host goes on.
    """
    if device == "cpu" or not tensor.numel():
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
