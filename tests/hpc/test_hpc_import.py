"""`import hpc` on a login node: quick, and nothing but Python until a name is used."""

from __future__ import annotations

import subprocess
import sys

import pytest

import hpc
from tests.support.waiting import COMMAND_S


def test_import_loads_no_library() -> None:
    code = "import sys, hpc; print(sorted({'pydantic', 'yaml', 'submitit', 'numpy', 'torch'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=COMMAND_S, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", hpc.__all__)
def test_every_name_is_there(name: str) -> None:
    assert getattr(hpc, name).__module__.startswith("hpc.")


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="module 'hpc' has no attribute 'Slurm'"):
        _ = hpc.Slurm  # type: ignore[attr-defined]
