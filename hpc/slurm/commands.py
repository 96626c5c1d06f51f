"""Running Slurm's commands: always with a deadline, and with a message that says what to do when one fails."""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Mapping, Sequence

log = logging.getLogger(__name__)

NOT_FOUND = 127  # env's and the shell's exit code
# a user's own defaults for listings (SQUEUE_STATES, SACCT_FORMAT, …) would change what we read
LISTING_DEFAULTS = ("SQUEUE_", "SACCT_", "SINFO_")


class SlurmError(RuntimeError):
    """A command of Slurm failed.

    Attributes:
        command: its name.
        exit_code: None: it was not found, or was still running at the deadline.
        output: what it said.
    """

    def __init__(self, command: str, exit_code: int | None, output: str, remedy: str) -> None:
        self.command, self.exit_code, self.output = command, exit_code, output
        found = output if exit_code is None else f"exit code {exit_code}: {output or 'no message'}"
        super().__init__(f"{command}: found {found}; wanted an answer: {remedy}")


REMEDIES = {
    "Unable to contact slurm controller": "Slurm's controller does not answer: wait and try again, or ask the admins",
    "Connection refused": "Slurm's controller or database does not answer: wait and try again, or ask the admins",
    "Socket timed out": "Slurm is busy: wait and try again; the command may have had its effect",
    "accounting storage is disabled": "this cluster keeps no accounts: set accounting: false in the site file",
    "Invalid job id specified": "the job ended a while ago or never was: look at its logs",
    "Access/permission denied": "the job is not yours, or the cluster forbids this: ask the admins",
    "Invalid account": "name an account that you may use in the site file: sacctmgr show associations user=$USER",
    "invalid partition specified": "name a partition of this cluster in the site file: sinfo",
    "Requested node configuration is not available": "no node has that much: compare with sinfo -o '%P %D %c %m %G'",
    "Could not establish a configuration source": "this machine is no part of a Slurm cluster: use a login node",
}


def run_command(argv: Sequence[str], timeout_s: float = 30.0, env: Mapping[str, str] | None = None) -> str:
    """Standard output of a command, with `env` over this process' environment.

    Raises:
        SlurmError: it is not there, took longer than `timeout_s`, or exited with another code than 0.
    """
    environment = {key: value for key, value in os.environ.items() if not key.startswith(LISTING_DEFAULTS)}
    try:
        done = subprocess.run(
            list(argv),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            env={**environment, **(env or {})},
        )
    except (FileNotFoundError, PermissionError):  # the latter: a file of that name that cannot be executed
        raise _no_such_command(argv[0]) from None
    except subprocess.TimeoutExpired:
        remedy = "Slurm is busy: wait and try again; the command may have had its effect"
        raise SlurmError(argv[0], None, f"no answer within {timeout_s:.0f} s", remedy) from None
    if done.returncode == NOT_FOUND and argv[0] == "env":  # of `sbatch_command`
        raise _no_such_command(next(word for word in argv[1:] if not word.startswith("--")))
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip())[-2000:]
        raise SlurmError(argv[0], done.returncode, said, remedy_for(said))
    return done.stdout


def _no_such_command(name: str) -> SlurmError:
    return SlurmError(name, None, "no such command", "use a login node of a Slurm cluster, or load Slurm's module")


def remedy_for(said: str) -> str:
    """What to do about a message of Slurm."""
    known = (remedy for text, remedy in REMEDIES.items() if text.lower() in said.lower())
    return next(known, "see Slurm's message; its documentation explains the options")


# of an allocation, as opposed to SLURM_CONF and others that a user sets to choose the cluster
KEPT = ("SLURM_CONF", "SLURM_CLUSTERS", "SLURM_TIME_FORMAT")
OF_AN_ALLOCATION = ("SLURM_", "SLURMD_", "SRUN_", "PMI_", "PMIX_", "EBBTIDE_JOB_END")
OPTIONS_OF_SBATCH = "SBATCH_"


def sbatch_command(*arguments: str) -> list[str]:
    """sbatch without the variables that must not reach it (`foreign_variables`)."""
    foreign = foreign_variables(os.environ)
    if options := [name for name in foreign if name.startswith(OPTIONS_OF_SBATCH)]:
        log.warning(
            "%s: not passed to sbatch, the job script says everything. Set what you need in the site file.",
            ", ".join(options),
        )
    return ["env", *(f"--unset={name}" for name in foreign), "sbatch", *arguments]


def foreign_variables(env: Mapping[str, str]) -> list[str]:
    """Variables that a job which is submitted must not inherit.

    Those of an allocation or a step, if it is submitted from inside one: sbatch passes its environment on, and the new
    job's srun would obey SLURM_NTASKS or SLURM_MEM_PER_NODE of the old one. And a user's defaults for sbatch, which
    count more than the script's own lines.
    """
    ours = [name for name in env if name.startswith((*OF_AN_ALLOCATION, OPTIONS_OF_SBATCH)) and name not in KEPT]
    gpus = ["CUDA_VISIBLE_DEVICES"] if "SLURM_JOB_ID" in env and "CUDA_VISIBLE_DEVICES" in env else []
    return sorted(ours + gpus)
