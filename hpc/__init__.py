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
    from hpc.allocation import Allocation as Allocation
    from hpc.allocation import AllocationError as AllocationError
    from hpc.commands import SlurmError as SlurmError
    from hpc.component import Component as Component
    from hpc.executor import HetSlurmExecutor as HetSlurmExecutor
    from hpc.executor import SubmitError as SubmitError
    from hpc.job import JobSpec as JobSpec
    from hpc.job_state import JobState as JobState
    from hpc.queue import Poller as Poller
    from hpc.queue import job_states as job_states
    from hpc.site import Site as Site
    from hpc.site import load_site as load_site

_HOME = {
    "Allocation": "hpc.allocation",
    "AllocationError": "hpc.allocation",
    "Component": "hpc.component",
    "HetSlurmExecutor": "hpc.executor",
    "JobSpec": "hpc.job",
    "JobState": "hpc.job_state",
    "Poller": "hpc.queue",
    "Site": "hpc.site",
    "SlurmError": "hpc.commands",
    "SubmitError": "hpc.executor",
    "job_states": "hpc.queue",
    "load_site": "hpc.site",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'hpc' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
