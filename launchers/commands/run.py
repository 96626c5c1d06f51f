"""`ebbtide run`: train on this machine."""

from __future__ import annotations

from core.config import dump_run_file
from launchers.commands.directories import new_run_dir
from launchers.commands.foreground import attempt, load
from launchers.commands.terminal import NewRunDir, Overrides, RunFile, say

EXAMPLE = "ebbtide run examples/smollm2-arithmetic.yaml --set rollout.num_rollout=4"


def command(run_file: RunFile, overrides: Overrides = None, run_dir: NewRunDir = None) -> None:
    """Train on this machine: check the run file, start trainers and engines, turn the loop."""
    from core.pretrained import needs_conversion

    config = load(run_file, overrides or [])
    directory = new_run_dir(config, run_dir)
    dump_run_file(config, directory.run_file)
    say(f"run directory: {directory.path}")
    if needs_conversion(config.model.path):
        say(f"converting the model of {config.model.path} first: once, about half a minute")
    attempt(directory)
