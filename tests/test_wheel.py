"""The wheel holds every file of its packages, those too that no package lists: plugins of engines, templates."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from tests.support.waiting import COMMAND_S

ROOT = Path(__file__).parents[1]
PACKAGES = ("common", "core", "ebbtide", "hpc", "launchers", "modelcfg")


def test_a_wheel_has_every_tracked_file_of_its_packages(tmp_path: Path) -> None:
    listed = subprocess.run(["git", "ls-files", *PACKAGES], cwd=ROOT, capture_output=True, text=True, check=True)
    tracked = [name for name in listed.stdout.splitlines() if (ROOT / name).exists()]
    source = tmp_path / "source"
    for name in [*tracked, "setup.cfg", "pyproject.toml", "README.md"]:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir"]
    subprocess.run([*build, tmp_path, source], check=True, timeout=COMMAND_S)
    (wheel,) = tmp_path.glob("ebbtide-*.whl")
    assert set(tracked) <= set(zipfile.ZipFile(wheel).namelist())
    assert any(name.endswith("cpu_shim/sgl_kernel/__init__.py") for name in tracked), "files that no package lists"
