"""`ebbtide resume`: go on with a run on this machine."""

from __future__ import annotations

from launchers.commands.directories import existing_run_dir
from launchers.commands.foreground import attempt, load, show_result
from launchers.commands.terminal import RunDir, say

EXAMPLE = "ebbtide resume runs/smollm2-arithmetic-20260102-030405"


def command(run_dir: RunDir) -> None:
    """Go on with a run from its newest sound checkpoint."""
    directory = existing_run_dir(run_dir)
    from core.checkpoint import is_complete

    config = load(directory.run_file, [])
    if is_complete(directory, config):
        say(f"{directory.path} is complete: all {config.rollout.num_rollout} steps are done.")
        show_result(directory)
    else:
        attempt(directory)
