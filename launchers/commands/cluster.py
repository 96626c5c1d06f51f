"""Checks of a submission on the login node: files, then the cluster itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from common.mistake import Mistake
from core.checks import ModelFiles, check_run_file
from core.config import RunFileError, dump_run_file
from core.run_dir.run_directory import RunDirectory
from hpc.sbatch.job import JobSpec
from hpc.site.files import SiteFileError, dump_site, find_site_file, load_site
from hpc.site.schema import Site
from hpc.slurm.commands import SlurmError
from launchers.commands.terminal import fail, note
from launchers.submit.memory_check import site_warnings
from launchers.submit.shared_paths import mounts
from launchers.submit.site_rules import refuse_disagreements
from launchers.submit.submission import Refused, Submission, make_submission, run_dir_mistake
from launchers.submit.which_gpus import site_device

SiteFile = Annotated[
    Path | None,
    typer.Option(
        "--site", help="The site file; left out: $EBBTIDE_SITE, ./site.yaml, ~/.config/ebbtide/site.yaml, or none."
    ),
]


def load_submission(run_file: Path, overrides: list[str] | None, site_file: Path | None) -> Submission:
    """Run file and site, checked each by itself and against each other; mistakes end the command."""
    files = ModelFiles()
    try:
        config = check_run_file(run_file, overrides or [], files)
        site, path = load_checked_site(site_file), site_file or find_site_file()
        submission = make_submission(
            config,
            site,
            shape=files.shape(config.model),
            device=site_device(config, site),
            site_file=path.resolve() if path else None,
        )
        refuse_disagreements(submission)
    except (RunFileError, Refused) as error:
        fail(str(error))
    return submission


def load_checked_site(site_file: Path | None) -> Site:
    """The site; mistakes in its file end the command."""
    try:
        return load_site(site_file)
    except SiteFileError as error:
        fail(str(error))


def note_memory(submission: Submission) -> None:
    """What to know of the GPUs' memory; what cannot fit has been refused before."""
    for text in site_warnings(submission):
        note(text)


def check_on_cluster(submission: Submission, run_dir: Path, *, required: bool, job: JobSpec | None = None) -> None:
    """Compare the job with what the cluster has; anything that sbatch or the nodes would refuse ends the command.

    Args:
        required: False (a dry run): a machine without Slurm is only noted.
        job: left out: the submission's.
    """
    from hpc.sbatch.request_check import check_request
    from hpc.site.cluster_facts import ask_cluster

    mistakes: list[Mistake] = []
    notices: list[str] = []
    if (mistake := run_dir_mistake(submission, run_dir, mounts())) is not None:
        mistakes.append(mistake)
    try:
        mistakes += check_request(job or submission.job(run_dir), ask_cluster())
    except Refused as error:
        mistakes += error.mistakes
    except SlurmError as error:
        if required:
            fail(str(error))
        notices.append(str(error))
    for notice in notices:
        note(f"not checked against the cluster: {notice}")
    if mistakes:
        fail(str(Refused(submission.config.name, mistakes)))


def write_inputs(submission: Submission, directory: RunDirectory) -> Path:
    """Run file and site, resolved, into the run directory, where the nodes read them; returns the script's path."""
    script = directory.job_script
    script.parent.mkdir(parents=True, exist_ok=True)
    dump_run_file(submission.config, directory.run_file)
    dump_site(submission.site, directory.site_file)
    return script
