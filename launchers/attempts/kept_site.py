"""The site file that a run keeps in its run directory, where the nodes read it."""

from __future__ import annotations

from core.run_dir.run_directory import RunDirectory
from hpc.site.files import Site, load_site


def kept_site(directory: RunDirectory) -> Site:
    """The site that the run was started with; all defaults if it was started without one."""
    path = directory.site_file
    return load_site(path) if path.exists() else Site()
