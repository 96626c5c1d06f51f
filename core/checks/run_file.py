"""A run file, read and held against every rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from common.mistake import Mistake
from common.yaml_document import Document
from core.checks.epochs import with_steps
from core.checks.model_files import ModelFiles
from core.checks.rules import check_run
from core.config.load import raise_mistakes, read_run_file
from core.config.schema import RunConfig


def check_run_file(
    path: str | Path, overrides: Sequence[str] = (), files: ModelFiles | None = None, folder: Path | None = None
) -> RunConfig:
    """The run file at `path`, if neither a key alone nor a rule over several of them shows a mistake.

    Where a section has mistakes of its own, the rules that read it are left for the next time.

    Args:
        files: shared with others who ask for the model's shape; left out: of this check alone.
        folder: that relative paths are relative to; left out: the file's.
    Raises:
        RunFileError: with all mistakes and their lines.
    """
    config, document, mistakes = read_run_file(Path(path), overrides, folder)
    config = with_steps(config)
    mistakes += [_located(mistake, document) for mistake in check_run(config, files)]
    raise_mistakes(Path(path), mistakes)
    return config


def _located(mistake: Mistake, document: Document) -> Mistake:
    path = tuple(mistake.key.split("."))
    override = document.override(path)
    return replace(mistake, line=None if override else document.line(path), override=override)
