"""`ebbtide sbatch`: the job script, for people who submit by hand."""

from __future__ import annotations

import sys
from pathlib import Path

from core.run_dir.run_directory import RunDirectory
from launchers.commands.cluster import SiteFile, load_submission, note_memory, write_inputs
from launchers.commands.directories import new_run_path
from launchers.commands.terminal import NewRunDir, Overrides, RunFile, fail, note
from launchers.commands.trial import call_reward
from launchers.submit.shared_paths import mounts
from launchers.submit.submission import Refused, Submission, run_dir_mistake

EXAMPLE = "ebbtide sbatch run.yaml --site site.yaml > job.sbatch && sbatch job.sbatch"


def command(run_file: RunFile, site: SiteFile = None, overrides: Overrides = None, run_dir: NewRunDir = None) -> None:
    """Print a self-contained job script, which needs nothing but the run directory that this command makes.

    Submitting it again goes on with the same run. `ebbtide status`, `logs` and `cancel` know it by its run directory.
    """
    submission = load_submission(run_file, overrides, site)
    note_memory(submission)
    call_reward(submission.config, elsewhere=True)
    directory = RunDirectory(new_run_path(submission.config, run_dir))
    if (mistake := run_dir_mistake(submission, directory.path, mounts())) is not None:
        fail(str(Refused(submission.config.name, [mistake])))
    text = script_text(submission, directory, run_file)
    script = write_inputs(submission, directory)
    script.write_text(text, encoding="utf-8")
    sys.stdout.write(text)
    note(f"run directory: {directory.path}")
    note(f"the same script: {script}")


def script_text(submission: Submission, directory: RunDirectory, run_file: Path) -> str:
    """The script of a job whose tasks are started without Submitit."""
    from hpc.sbatch.text import sbatch_text

    about = (f"Run {submission.config.name!r}, made by `ebbtide sbatch {run_file.name}`.",)
    try:
        return sbatch_text(submission.job(directory.path), about)
    except (Refused, ValueError) as error:
        fail(str(error))
