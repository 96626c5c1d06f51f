"""Reading, checking and writing run files."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from core.config import dialect
from core.config.checks import check_run
from core.config.document import Document, apply_overrides, read_document
from core.config.paths import resolve_paths
from core.config.problem import Problem, RunFileError
from core.config.schema import RunConfig
from core.config.validate import validate
from core.files import write_atomically


def load_run_file(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """The run file at `path`, types and ranges checked, relative paths made absolute.

    Args:
        path: the YAML file; relative paths in it are relative to its folder.
        overrides: texts `section.key=value`, the value read as YAML, applied in order.
    Raises:
        RunFileError: with every mistake that one key alone shows.
    """
    config, _, problems = _load(Path(path), overrides)
    _raise(Path(path), problems)
    return config


def check_run_file(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """As `load_run_file`, and everything that `check_run` checks, reported together and with lines.

    Where a section has mistakes of its own, the rules that read it are left for the next time.
    """
    config, document, problems = _load(Path(path), overrides)
    problems += [_located(problem, document) for problem in check_run(config)]
    _raise(Path(path), problems)
    return config


def dump_run_file(config: RunConfig, path: str | Path) -> None:
    """Writes `config` so that loading the file gives an equal config. The file appears whole or not at all."""
    text = io.StringIO()
    dialect.write(config.model_dump(mode="json"), text)
    write_atomically(Path(path), text.getvalue())


def _load(path: Path, overrides: Sequence[str]) -> tuple[RunConfig, Document, list[Problem]]:
    document, problems = read_document(path)
    _raise(path, problems)  # of YAML itself: then the tree is not to be trusted
    problems = apply_overrides(document, overrides)
    config, invalid = validate(document)
    return resolve_paths(config, path.absolute().parent), document, problems + invalid


def _raise(path: Path, problems: list[Problem]) -> None:
    """Nothing if there is no problem; else all of them, in the order of the file, overrides last."""
    if problems:
        raise RunFileError(path, sorted(problems, key=lambda problem: (bool(problem.override), problem.line or 0)))


def _located(problem: Problem, document: Document) -> Problem:
    path = tuple(problem.key.split("."))
    override = document.override(path)
    return replace(problem, line=None if override else document.line(path), override=override)
