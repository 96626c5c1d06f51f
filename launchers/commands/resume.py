"""`ebbtide resume`: go on with a run on this machine."""

from __future__ import annotations

from contextlib import suppress

from core.config import dump_run_file
from core.config.schema import RunConfig
from core.run_dir.run_directory import RunDirectory
from launchers.commands.directories import existing_run_dir
from launchers.commands.foreground import attempt, current_allocation, load, show_result
from launchers.commands.run import Local
from launchers.commands.terminal import RunDir, fail, say

EXAMPLE = "ebbtide resume runs/smollm2-arithmetic-20260102-030405"


def command(run_dir: RunDir, local: Local = False) -> None:
    """Go on with a run from its newest sound checkpoint, here; on a cluster: `ebbtide submit --resume`."""
    from core.loop.checkpoints import is_complete
    from launchers.attempts.attempt import RunBusy, note_complete

    directory = existing_run_dir(run_dir)
    allocation = current_allocation(local)
    config = load(directory.run_file, [], allocation)
    if is_complete(directory, config):
        with suppress(RunBusy):  # who works there says so itself
            note_complete(directory)
        say(f"{directory.path} is complete: all {config.rollout.num_rollout} steps are done.")
        show_result(directory)
    else:
        if allocation is not None:
            _rewrite_run_file(config, directory)
        attempt(directory, allocation)


def _rewrite_run_file(config: RunConfig, directory: RunDirectory) -> None:
    """Write the run file again, whose number of nodes may have changed; not while a job works with the file."""
    from launchers.attempts.attempt import RunBusy, locked

    try:
        with locked(directory):
            dump_run_file(config, directory.run_file)
    except RunBusy as error:
        fail(str(error))
