"""Reading and writing run files."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from common import yaml_dialect
from common.files import write_atomically
from common.mistake import Mistake, MistakesError
from common.yaml_document import Document, read_document
from core.config.implied import with_implied
from core.config.keys import RUN_FILE
from core.config.overrides import apply_overrides
from core.config.paths import resolve_paths
from core.config.schema import RunConfig
from core.config.validate import validate


class RunFileError(MistakesError):
    """A run file with mistakes. `str()` gives the file's name and every mistake, one a line."""

    def __init__(self, path: Path, mistakes: Sequence[Mistake]) -> None:
        self.path = path
        super().__init__(f"{path} has", mistakes)


def load_run_file(path: str | Path, overrides: Sequence[str] = (), folder: Path | None = None) -> RunConfig:
    """The run file at `path`, types and ranges checked, relative paths made absolute.

    Args:
        path: the YAML file.
        overrides: texts `section.key=value`, the value read as YAML, applied in order.
        folder: that relative paths are relative to; None: the file's.
    Raises:
        RunFileError: with every mistake that one key alone shows.
    """
    config, _, mistakes = read_run_file(Path(path), overrides, folder)
    raise_mistakes(Path(path), mistakes)
    return config


def dump_run_file(config: RunConfig, path: str | Path) -> None:
    """Writes `config` so that loading the file gives an equal config. The file appears whole or not at all."""
    text = io.StringIO()
    yaml_dialect.write(config.model_dump(mode="json"), text)
    write_atomically(Path(path), text.getvalue())


def read_run_file(
    path: Path, overrides: Sequence[str], folder: Path | None = None
) -> tuple[RunConfig, Document, list[Mistake]]:
    """The sections, the tree that they come from, and every mistake that one key alone shows.

    Args:
        folder: that relative paths are relative to; None: the file's.
    Raises:
        RunFileError: if the file is no YAML.
    """
    document, mistakes = read_document(path, RUN_FILE)
    raise_mistakes(path, mistakes)  # of YAML itself: then the tree is not to be trusted
    mistakes = apply_overrides(document, overrides)
    config, invalid = validate(document)
    folder = folder or path.absolute().parent
    return resolve_paths(with_implied(config), folder), document, mistakes + invalid


def raise_mistakes(path: Path, mistakes: list[Mistake]) -> None:
    """Raise all mistakes, if there are any, in the order of the file, overrides last."""
    if mistakes:
        raise RunFileError(path, sorted(mistakes, key=lambda mistake: (bool(mistake.override), mistake.line or 0)))
