"""The demo's task for bench/algorithms.py: SmolLM2-135M on one-digit sums, evaluated on pairs that are kept out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

EXAMPLE = Path(__file__).parents[1] / "examples" / "smollm2-arithmetic.yaml"
HELD_OUT = "kept_out"


def write_task(folder: Path, seed: int) -> Path:
    """The folder as it is: rows and weights are the demo's, whatever the seed."""
    del seed
    return folder


def run_file(folder: Path) -> dict[str, Any]:
    """The demo's run file with paths that hold anywhere, and of its evaluation sets the one that is not trained on."""
    del folder
    written: dict[str, Any] = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
    held_out = written["eval"]["sets"][HELD_OUT]
    for section in (written["data"], held_out):
        section["path"] = str(EXAMPLE.parent / section["path"])
    return written | {"eval": {"sets": {HELD_OUT: held_out}}}
