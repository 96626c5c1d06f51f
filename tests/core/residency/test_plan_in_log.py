"""What was planned stands beside what is found: in the log of each phase, and in an error."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import pytest
import torch

from core.residency.machine import Residency, ResidencyError

GIB = 2**30


class Nobody:
    """An owner of nothing."""

    name = "trainer"

    def held(self) -> Mapping[str, int]:
        return {}

    def shrink_to(self, parts: frozenset[str]) -> None: ...

    def grow_to(self, parts: frozenset[str]) -> None: ...


@pytest.fixture
def residency() -> Residency:
    return Residency([Nobody()], lambda: None, planned={"update": (71 * GIB, 76 * GIB)})


def test_each_line_has_the_plan(residency: Residency, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        residency.enter("update", 3)
    assert "residency=update step=3 " in caplog.text
    assert " plan_gib=71.00..76.00 held_gib=0.00 " in caplog.text


def test_a_lack_of_memory_names_the_plan(residency: Residency) -> None:
    with pytest.raises(ResidencyError, match=r"Planned: 76.00 GiB in all. Lower train"), residency.inside("update", 3):
        raise torch.OutOfMemoryError("none left")
