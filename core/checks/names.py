"""The run's name, which becomes that of a folder and of a job."""

from __future__ import annotations

import re
from collections.abc import Iterator

from common.mistake import Mistake, show
from core.config.schema import RunConfig

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")


def run_name(config: RunConfig) -> Iterator[Mistake]:
    """Letters, digits and a few signs: a name that leads out of `runs_dir` is none, nor one that Slurm refuses."""
    if not NAME.fullmatch(config.name):
        wanted = "a name of letters, digits, _ . + and -, beginning with a letter or digit"
        yield Mistake("name", None, show(config.name), wanted, "rename the run; runs_dir says where its folder lies")
