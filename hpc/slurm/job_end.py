"""End of a job's allocation, asked of Slurm: a limit may have been changed since the job began."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from datetime import datetime

from hpc.slurm.commands import SlurmError, run_command

TIMEOUT_S = 10.0

log = logging.getLogger(__name__)


def job_of(env: Mapping[str, str]) -> str | None:
    """The job around a process, as scontrol knows it: its first component; None outside Slurm."""
    return env.get("SLURM_JOB_ID_HET_GROUP_0") or env.get("SLURM_JOB_ID") or None


def ask_job_end(job_id: str) -> float | None:
    """Seconds since 1970 at which the time limit ends the job; None: it has no limit, or nobody tells."""
    try:
        facts = run_command(
            ["scontrol", "show", "job", "--oneliner", job_id], TIMEOUT_S, {"SLURM_TIME_FORMAT": "standard"}
        )
    except SlurmError as error:
        log.warning("the end of the job is not known anew: %s", error)
        return None
    return parse_job_end(facts)


def parse_job_end(facts: str) -> float | None:
    """The end in what `scontrol show job` says; of a heterogeneous job that of its first component."""
    found = re.search(r" EndTime=(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)", facts)
    return datetime.fromisoformat(found[1]).timestamp() if found else None
