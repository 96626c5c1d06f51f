"""A path as a person would type it where they are."""

from __future__ import annotations

from pathlib import Path


def short_path(path: Path) -> str:
    """Relative to the current folder where it lies in it, else as it is."""
    here = Path.cwd()
    inside = path.is_relative_to(here) and path != here
    return str(path.relative_to(here)) if inside else str(path)
