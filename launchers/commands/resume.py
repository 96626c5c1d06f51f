"""`ebbtide resume`: go on with a run on this machine."""

from __future__ import annotations

from core.config.schema import RunConfig
from core.run_directory import RunDirectory
from launchers.commands.directories import existing_run_dir
from launchers.commands.foreground import attempt, load, show_result
from launchers.commands.terminal import RunDir, say

EXAMPLE = "ebbtide resume runs/smollm2-arithmetic-20260102-030405"


def command(run_dir: RunDir) -> None:
    """Go on with a run from its newest sound checkpoint."""
    directory = existing_run_dir(run_dir)
    config = load(directory.run_file, [])
    if complete(directory, config):
        say(f"{directory.path} is complete: all {config.rollout.num_rollout} steps are done.")
        show_result(directory)
    else:
        attempt(directory)


def complete(directory: RunDirectory, config: RunConfig) -> bool:
    """Whether all steps are done and everything that is written at the end is there."""
    from core.checkpoint import find_latest

    found = find_latest(directory.checkpoints)
    all_steps = found is not None and found[1].next_step >= config.rollout.num_rollout
    return all_steps and (directory.hf_model.exists() or not config.checkpoint.save_hf)
