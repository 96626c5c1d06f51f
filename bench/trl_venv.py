"""A virtual environment with TRL, beside the project's: what the project has already is read from there."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

TRL = "trl==1.16.0"
INSTALL_TIMEOUT_S = 600.0


def make(folder: Path) -> Path:
    """The Python of a virtual environment in `folder` that imports TRL; made if it is not there.

    Torch and transformers come through a .pth file, after the environment's own packages, so both programs run on the
    same builds. pip sees them there and installs what is missing; nothing enters the project's environment.

    Raises:
        subprocess.CalledProcessError, subprocess.TimeoutExpired: venv or pip failed.
    """
    python = folder / "bin" / "python"
    marker = folder / f".{TRL}"
    if not marker.exists():
        _run(sys.executable, "-m", "venv", str(folder))
        question = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
        own = subprocess.run([str(python), "-c", question], capture_output=True, text=True, check=True).stdout.strip()
        Path(own, "project.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
        _run(str(python), "-m", "pip", "install", "--quiet", "--no-warn-conflicts", TRL)
        marker.touch()
    return python


def _run(*command: str) -> None:
    subprocess.run(command, check=True, timeout=INSTALL_TIMEOUT_S)
