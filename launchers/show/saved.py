"""What of a run is saved, said when it was stopped. Nothing false is said: what was done and not saved is named."""

from __future__ import annotations

from core.run_dir.run_directory import RunDirectory
from launchers.attempts.history import read_history


def saved_text(directory: RunDirectory) -> str:
    """Half a sentence: up to which step the run is saved, and which steps are to be done again."""
    done, saved = read_history(directory).advance.steps_done, directory.newest_checkpoint()
    if saved is None:
        return "nothing is saved" + (f", so all {done} steps will be done again" if done else ", no step was complete")
    if done > saved:
        return f"saved up to step {saved}; {done - saved} later steps will be done again"
    return f"saved, all {saved} steps that are complete"
