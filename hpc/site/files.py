"""Finding, reading and writing site files."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from common import yaml_dialect
from common.files import write_atomically
from common.mistake import Mistake, MistakesError
from common.yaml_document import read_document
from hpc.site.check import check_site
from hpc.site.keys import SITE_FILE
from hpc.site.schema import Container, CpuNodes, Site

__all__ = ["Container", "CpuNodes", "Site", "SiteFileError", "dump_site", "find_site_file", "load_site"]


class SiteFileError(MistakesError):
    """A site file with mistakes. `str()` gives the file's name and every mistake, one a line."""

    def __init__(self, path: Path, mistakes: Sequence[Mistake]) -> None:
        self.path = path
        super().__init__(f"{path} has", mistakes)


def load_site(path: Path | None = None) -> Site:
    """The site of the file `path`; None: of the first file that `find_site_file` finds, else all defaults.

    Raises:
        SiteFileError: with every mistake of the file.
    """
    path = path or find_site_file()
    if path is None:
        return Site()
    document, mistakes = read_document(path, SITE_FILE)
    site = None
    if not mistakes:
        site, mistakes = check_site(document)
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
    tree, text = site.model_dump(mode="json", exclude_defaults=True), io.StringIO()
    if tree:
        yaml_dialect.write(tree, text)
    write_atomically(path, text.getvalue() or "# all defaults\n")
