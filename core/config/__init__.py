"""Run files: read and written without torch, so that a login node can do it. Rules over several keys: `core.checks`."""

from __future__ import annotations

from common.mistake import Mistake
from core.config.load import RunFileError, dump_run_file, load_run_file
from core.config.schema import RunConfig

__all__ = [
    "Mistake",
    "RunConfig",
    "RunFileError",
    "dump_run_file",
    "load_run_file",
]
