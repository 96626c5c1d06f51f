"""`ebbtide resume`: go on with a run on this machine."""

from __future__ import annotations

from contextlib import suppress

from core.checks.resumed import fixed_keys_changed
from core.config import RunFileError, dump_run_file, load_run_file
from core.config.schema import RunConfig
from core.run_dir.run_directory import RunDirectory
from launchers.commands.changes import AcceptChanges, compare_files
from launchers.commands.directories import begun_run_dir
from launchers.commands.foreground import attempt, current_allocation, load, show_result
from launchers.commands.run import Local
from launchers.commands.terminal import Overrides, RunDir, fail, refuse, say

EXAMPLE = "ebbtide resume runs/smollm2-arithmetic-20260102-030405 --set rollout.num_rollout=40"


def command(
    run_dir: RunDir, overrides: Overrides = None, local: Local = False, accept_changes: AcceptChanges = False
) -> None:
    """Go on with a run from its newest sound checkpoint, here; on a cluster: `ebbtide submit --resume`.

    What counts is RUN_DIR/run.yaml, not the file that the run was started with. --set changes it for good: more steps,
    the learning rate, evaluation, logging, placement; not what the checkpoint depends on, the model and its data. Files
    whose content has changed since are named; if they decide the samples, the run goes on only with --accept-changes.
    """
    from core.loop.manifest import is_complete
    from launchers.attempts.attempt import RunBusy, note_complete

    directory = begun_run_dir(run_dir)
    allocation = current_allocation(local)
    config = load(directory.run_file, overrides or [], allocation)
    _refuse_fixed(directory, config, overrides or [])
    if is_complete(directory, config):
        with suppress(RunBusy):  # who works there says so itself
            note_complete(directory)
        say(f"{directory.path} is complete: all {config.rollout.num_rollout} steps are done.")
        show_result(directory)
    else:
        compare_files(directory, accept=accept_changes)
        if allocation is not None or overrides:
            _rewrite_run_file(config, directory)
        say(f"settings: {directory.run_file}{' (changed)' if overrides else ''}")
        attempt(directory, allocation)


def _refuse_fixed(directory: RunDirectory, config: RunConfig, overrides: list[str]) -> None:
    try:
        before = load_run_file(directory.run_file)
    except RunFileError:  # mistakes that the overrides have mended
        return
    if mistakes := list(fixed_keys_changed(before, config, overrides)):
        refuse(mistakes)


def _rewrite_run_file(config: RunConfig, directory: RunDirectory) -> None:
    """Write the run file again, as the run goes on with it; not while a job works with the file."""
    from launchers.attempts.attempt import RunBusy, locked

    try:
        with locked(directory):
            dump_run_file(config, directory.run_file)
    except RunBusy as error:
        fail(str(error))
