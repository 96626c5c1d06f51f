"""Run files: read, checked and written without torch, so that a login node can do it."""

from __future__ import annotations

from common.mistake import Mistake
from core.config.checks import check_run
from core.config.load import RunFileError, check_run_file, dump_run_file, load_run_file
from core.config.schema import RunConfig

__all__ = [
    "Mistake",
    "RunConfig",
    "RunFileError",
    "check_run",
    "check_run_file",
    "dump_run_file",
    "load_run_file",
]
