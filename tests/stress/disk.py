"""A disk of its own for a run: it can be full, unwritable, frozen and slow, without others noticing. Needs root."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

SIZE_MIB = 2048  # sparse: the gate wants a GiB free
FREEZE_S, THAW_S = 0.4, 0.2  # of a slow one, in turns


class Disk:
    """A file system in a file, mounted at a folder."""

    def __init__(self, image: Path, folder: Path) -> None:
        self.folder, self._image = folder, image
        with image.open("wb") as file:
            file.truncate(SIZE_MIB * 2**20)
        _run("mkfs.ext4", "-q", "-m", "0", "-O", "^has_journal", str(image))
        folder.mkdir(parents=True, exist_ok=True)
        _run("mount", "-o", "loop", str(image), str(folder))
        self._immutable: list[Path] = []
        self._thaw: threading.Thread | None = None

    def fill(self) -> None:
        """Leave no room."""
        with suppress(OSError), (self.folder / "filler").open("wb", buffering=0) as file:
            free = _free(self.folder)
            subprocess.run(["fallocate", "-l", str(max(free - 2**20, 1)), file.name], capture_output=True)
            file.seek(0, 2)
            while True:
                file.write(b"\0" * 2**16)
        with suppress(OSError), (self.folder / "filler2").open("wb", buffering=0) as file:
            while True:
                file.write(b"\0" * 512)

    def close_to_writers(self, path: Path) -> None:
        """Nothing more can be made in a folder, not even by root."""
        _run("chattr", "+i", str(path))
        self._immutable.append(path)

    def freeze(self, for_s: float) -> None:
        """Whoever writes waits until it is over."""
        self._in_background(lambda: self._frozen(for_s))

    def slow_down(self, for_s: float) -> None:
        """Whoever writes waits most of the time."""

        def slow() -> None:
            end = time.monotonic() + for_s
            while time.monotonic() < end:
                self._frozen(FREEZE_S)
                time.sleep(THAW_S)

        self._in_background(slow)

    def mend(self) -> None:
        """Room, permission, and nothing frozen."""
        if self._thaw is not None:
            self._thaw.join()
        for path in self._immutable:
            subprocess.run(["chattr", "-i", str(path)], capture_output=True)
        self._immutable.clear()
        for name in ("filler", "filler2"):
            (self.folder / name).unlink(missing_ok=True)

    def close(self) -> None:
        """Unmount it and remove the file."""
        self.mend()
        for _ in range(50):
            if subprocess.run(["umount", str(self.folder)], capture_output=True).returncode == 0:
                break
            time.sleep(0.2)
        self._image.unlink(missing_ok=True)

    def _frozen(self, for_s: float) -> None:
        _run("fsfreeze", "-f", str(self.folder))
        time.sleep(for_s)
        _run("fsfreeze", "-u", str(self.folder))

    def _in_background(self, act: object) -> None:
        if self._thaw is not None:
            self._thaw.join()
        self._thaw = threading.Thread(target=act)  # type: ignore[arg-type]
        self._thaw.start()


def why_not(folder: Path) -> str | None:
    """The reason for which no case can be played in a folder here; None if it can."""
    if os.geteuid() != 0:
        return "a disk of its own needs root"
    for needed in (folder, Path(__file__), Path(sys.prefix)):
        if needed.resolve().is_relative_to("/tmp"):
            return f"found {needed} in /tmp, of which each case has one of its own; wanted it elsewhere"
    try:
        with tempfile.TemporaryDirectory(dir=folder) as name:
            Disk(Path(name) / "probe.img", Path(name) / "probe").close()
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", b"") or b""
        return f"no file system can be mounted here: {error} {said.decode(errors='replace').strip()}"
    return None


def _free(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
