"""Updates of several layouts, compared."""

from __future__ import annotations

from typing import Any

import pytest


def check_same(ours: list[Any], theirs: list[Any]) -> None:
    """Metrics and log-probs to 1e-5, update by update."""
    for found, wanted in zip(ours, theirs, strict=True):
        for name, value in wanted["metrics"].items():
            if name.startswith("train/"):
                assert found["metrics"][name] == pytest.approx(value, rel=1e-5, abs=1e-5), name
        for a, b in zip(found["logprobs"], wanted["logprobs"], strict=True):
            assert a == pytest.approx(b, abs=1e-5, nan_ok=True)
