"""Settings of the site that `make docs` makes: README, docs/ and bench/ by Sphinx and MyST, as they lie here.

The pages need no markup for it: they are listed below, in the order of the side bar, and links to files of the
repository become downloads. Any warning, such as a link to a heading that is not there, ends the build.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from sphinx.application import Sphinx

CONTENTS = {
    "First hours": (
        "docs/session",
        "docs/gsm8k",
        "docs/run-file",
        "docs/rewards-and-data",
        "docs/learning",
        "docs/report",
        "docs/troubleshooting",
        "docs/faq",
    ),
    "Coming from elsewhere": ("docs/from-trl", "docs/moving-in"),
    "What it trains": ("docs/algorithms", "docs/rollouts", "docs/sft", "docs/lora", "docs/doors", "docs/models"),
    "Clusters": ("docs/slurm", "docs/site-file", "docs/containers", "docs/slurm-mistakes"),
    "Memory and speed": ("docs/plan", "docs/performance", "bench/README"),
    "Reference": ("docs/glossary", "docs/trajectory", "docs/design"),
    "Measurements": (
        "bench/algorithms",
        "bench/algorithms_smollm2",
        "bench/mismatch",
        "bench/mutation",
        "bench/notes/2026-11-learning",
        "bench/notes/2026-11-performance",
        "bench/notes/2026-11-stress",
        "bench/notes/2026-11-digits",
        "bench/notes/2026-12-drafts",
    ),
}

project = "ebbtide"
extensions = ["myst_parser"]
root_doc = "README"
include_patterns = ["README.md", "docs/*.md", "bench/*.md", "bench/notes/*.md"]
myst_heading_anchors = 4
suppress_warnings = ["misc.highlighting_failure"]  # pages show files that are not YAML, on purpose
html_theme = "furo"
html_title = "ebbtide"
html_copy_source = False


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", _add_contents)
    app.connect("build-finished", _name_the_first_page)


def _add_contents(_app: Sphinx, page: str, text: list[str]) -> None:
    if page == root_doc:
        for caption, pages in CONTENTS.items():
            text[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n" + "\n".join(pages) + "\n```\n"


def _name_the_first_page(app: Sphinx, failure: Exception | None) -> None:
    if failure is None:
        shutil.copyfile(Path(app.outdir, f"{root_doc}.html"), Path(app.outdir, "index.html"))
