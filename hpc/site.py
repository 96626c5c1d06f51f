"""Finding, reading and writing site files."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from hpc.mistake import Mistake
from hpc.site_check import check_site
from hpc.site_schema import Container, CpuNodes, Site
from hpc.site_yaml import dump_tree, read_tree

__all__ = ["Container", "CpuNodes", "Site", "SiteFileError", "dump_site", "find_site_file", "load_site"]


class SiteFileError(ValueError):
    """A site file with mistakes. `str()` gives the file's name and every mistake, one a line."""

    def __init__(self, path: Path, mistakes: Sequence[Mistake]) -> None:
        self.path = path
        self.mistakes = list(mistakes)
        count = "1 mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
        super().__init__("\n".join([f"{path} has {count}:", *(f"  {mistake}" for mistake in mistakes)]))


def load_site(path: Path | None = None) -> Site:
    """The site of the file `path`; None: of the first file that `find_site_file` finds, else all defaults.

    Raises:
        SiteFileError: with every mistake of the file.
    """
    path = path or find_site_file()
    if path is None:
        return Site()
    tree, lines, mistakes = read_tree(path)
    site = None
    if not mistakes:
        site, mistakes = check_site(tree, lines)
    if site is None or mistakes:
        raise SiteFileError(path, sorted(mistakes, key=lambda mistake: mistake.line or 0))
    return site


def find_site_file(environ: Mapping[str, str] = os.environ) -> Path | None:
    """$EBBTIDE_SITE (which must then be there), else ./site.yaml, else ~/.config/ebbtide/site.yaml, else None."""
    if environ.get("EBBTIDE_SITE"):
        return Path(environ["EBBTIDE_SITE"])
    candidates = (Path("site.yaml"), Path.home() / ".config" / "ebbtide" / "site.yaml")
    return next((path for path in candidates if path.is_file()), None)


def dump_site(site: Site, path: Path) -> None:
    """Writes `site` so that loading the file gives an equal site. The file appears whole or not at all."""
    text = dump_tree(site.model_dump(mode="json", exclude_defaults=True))
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
