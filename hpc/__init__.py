"""Slurm as facts: jobs and their components, sites, the allocation, states of jobs, and an executor for submitit.

    from hpc import Component, HetSlurmExecutor

    executor = HetSlurmExecutor("logs", [Component("trainers", nodes=2), Component("rewards", cpus_per_task=8)])
    job = executor.submit(function, argument)  # on every task of both components
    job.results()  # one per task

Names are loaded when they are first used: importing this package is quick and needs nothing but Python.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hpc.executor.executor import HetSlurmExecutor as HetSlurmExecutor
    from hpc.executor.executor import JobExecutor as JobExecutor
    from hpc.executor.executor import SubmitError as SubmitError
    from hpc.sbatch.job import JobSpec as JobSpec
    from hpc.site.files import Site as Site
    from hpc.site.files import load_site as load_site
    from hpc.slurm.allocation import Allocation as Allocation
    from hpc.slurm.allocation import AllocationError as AllocationError
    from hpc.slurm.commands import SlurmError as SlurmError
    from hpc.slurm.component import Component as Component
    from hpc.slurm.job_state import JobState as JobState
    from hpc.slurm.queue import Poller as Poller
    from hpc.slurm.queue import job_states as job_states

_HOME = {
    "Allocation": "hpc.slurm.allocation",
    "AllocationError": "hpc.slurm.allocation",
    "Component": "hpc.slurm.component",
    "HetSlurmExecutor": "hpc.executor.executor",
    "JobExecutor": "hpc.executor.executor",
    "JobSpec": "hpc.sbatch.job",
    "JobState": "hpc.slurm.job_state",
    "Poller": "hpc.slurm.queue",
    "Site": "hpc.site.files",
    "SlurmError": "hpc.slurm.commands",
    "SubmitError": "hpc.executor.executor",
    "job_states": "hpc.slurm.queue",
    "load_site": "hpc.site.files",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'hpc' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
