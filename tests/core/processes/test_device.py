from __future__ import annotations

from pathlib import Path

import pytest
import torch

from core.processes import device


@pytest.mark.skipif(torch.version.cuda is not None, reason="torch with CUDA")
def test_gpus_that_this_torch_cannot_use_are_not_left_idle_in_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A virtual environment that was made on a login node without GPUs."""
    monkeypatch.setattr(device, "GPUS_OF_THE_KERNEL", tmp_path / "gpus")
    assert device.resolve_device("auto") == "cpu"
    (tmp_path / "gpus").mkdir()
    with pytest.raises(ValueError, match=r"found GPUs here, but torch .*make install GPU=yes"):
        device.resolve_device("auto")
    assert device.resolve_device("cpu") == "cpu"
