"""Pictures of the demo's report for the pages: `python -m tests.screenshots`, with chromium from apt."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from core.run_dir.run_directory import RunDirectory
from launchers.report.page import report
from tests.support.chromium import CHROMIUM, Browser

ROOT = Path(__file__).parents[1]
MOST_BYTES = 200_000


@dataclass(frozen=True)
class Shot:
    """One picture: the upper part of the page in a window of this size, in CSS pixels."""

    name: str
    width: int
    height: int
    dark: bool = False


SHOTS = (Shot("desktop", 1280, 1150), Shot("dark", 1280, 1150, dark=True), Shot("phone", 400, 1650))


def main() -> None:
    """Take the pictures of the newest run of the demo, or of the run directory that is named."""
    if CHROMIUM is None:
        sys.exit("found no chromium; wanted Debian's: apt-get install chromium")
    named = [Path(word) for word in sys.argv[1:]]
    runs = named or sorted(ROOT.glob("runs/smollm2-arithmetic-*"))
    if not runs:
        sys.exit("runs/: found no run of the demo; wanted one: make demo")
    with tempfile.TemporaryDirectory() as folder, Browser(Path(folder) / "browser") as browser:
        page = Path(folder) / "report.html"
        page.write_text(report([RunDirectory(runs[-1].resolve())]), encoding="utf-8")
        for shot in SHOTS:
            browser.open(page, shot.width, dark=shot.dark)
            path = ROOT / "docs" / f"report-{shot.name}.png"
            png = browser.picture(shot.height)
            assert len(png) < MOST_BYTES, (shot, len(png))
            path.write_bytes(png)
            print(f"{path} ({path.stat().st_size / 1000:.0f} kB)")


if __name__ == "__main__":
    main()
