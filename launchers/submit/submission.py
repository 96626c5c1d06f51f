"""A run for a cluster: run file, site and plan checked against each other. Sends nothing and asks nobody."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from common.mistake import Mistake, MistakesError, Wrong
from core.config.schema import RunConfig
from hpc.sbatch.job import JobSpec
from hpc.site.files import Site
from hpc.slurm.options import IN_COMPONENT, IN_REWARDS, IN_TRAINERS, refuse_options
from hpc.slurm.reserved import reserved_variable
from launchers.submit.job_plan import Plan, make_plan, task_command
from launchers.submit.memory_check import refusals
from launchers.submit.shared_paths import unshared
from launchers.submit.which_gpus import on_cpu, site_gpu


class Refused(MistakesError):
    """A submission with mistakes. `str()` gives all of them, one a line."""

    def __init__(self, name: str, mistakes: Sequence[Mistake]) -> None:
        super().__init__(f"{name} cannot be submitted,", mistakes)


@dataclass(frozen=True)
class Submission:
    """What is to be submitted, `site.python` filled in. `site_file`: where it was read from; None: all defaults."""

    config: RunConfig
    site: Site
    site_file: Path | None
    plan: Plan

    def job(self, run_dir: Path) -> JobSpec:
        """The job, with what every task runs.

        Raises:
            Refused: the parts do not make a job.
        """
        try:
            return self.plan.job(run_dir, task_command(self.site.python or "python3"))
        except Wrong as wrong:
            raise Refused(self.config.name, [wrong.at("")]) from wrong


def make_submission(config: RunConfig, site: Site, site_file: Path | None) -> Submission:
    """The submission of a checked run file on a site.

    Raises:
        Refused: with all mistakes that run file and site together show.
    """
    site = site.model_copy(update={"python": site.interpreter})
    mistakes = list(disagreements(config, site))
    if mistakes:
        raise Refused(config.name, mistakes)
    try:
        return Submission(config, site, site_file, make_plan(config, site))
    except Wrong as wrong:
        raise Refused(config.name, [wrong.at("")]) from wrong


def disagreements(config: RunConfig, site: Site) -> Iterator[Mistake]:
    """What the site does not grant, and what is the launcher's own."""
    yield from _variables(config)
    if refused := list(option_mistakes(config, site)):
        yield from refused
        return  # no job can be made of these, and so no plan
    yield from _time(config, site)
    yield from _gpus(config, site)
    yield from _memory(config, site)


def run_dir_mistake(submission: Submission, run_dir: Path, kinds: Mapping[Path, str]) -> Mistake | None:
    """Why the nodes would not see the run directory; None if they may."""
    return unshared(run_dir, submission.site.shared_filesystems, kinds)


def chain_length(submission: Submission) -> int:
    """How many jobs are submitted: one that requeues itself, or a chain where the site forbids that."""
    return 1 if submission.site.requeue else submission.config.slurm.chain


def next_in_chain(job: JobSpec, before: str | None) -> JobSpec:
    """The job, to start when the job `before` has ended, however it ended."""
    return job if before is None else replace(job, dependency=f"afterany:{before}")


def _variables(config: RunConfig) -> Iterator[Mistake]:
    for name in config.slurm.environment:
        if (reason := reserved_variable(name)) is not None:
            wanted = "a variable that is yours to set"
            yield Mistake(f"slurm.environment.{name}", None, f"the variable {name}", wanted, reason)


def option_mistakes(config: RunConfig, site: Site) -> Iterator[Mistake]:
    """Options of sbatch that the components of the run file may not set."""
    askers = {"trainers": IN_TRAINERS, "rewards": IN_REWARDS}
    for index, component in enumerate(config.slurm.components):
        asker = askers.get(component.role, IN_COMPONENT)
        for option, wrong in refuse_options(component.sbatch, asker, site.plugin_options):
            yield wrong.at(f"slurm.components.{index}.sbatch.{option}")


def _time(config: RunConfig, site: Site) -> Iterator[Mistake]:
    minutes, most = make_plan(config, site).time_minutes, site.max_time_minutes
    if most is not None and minutes > most:
        yield Mistake(
            "slurm.time",
            None,
            f"{minutes} min",
            f"at most {most} min (max_time of the site file)",
            "lower it: a run that needs longer saves itself and goes on in another job",
        )


def _gpus(config: RunConfig, site: Site) -> Iterator[Mistake]:
    if site.gpus_per_node is None:
        return
    for index, component in enumerate(make_plan(config, site).components):
        if component.gpus_per_node > site.gpus_per_node:
            yield Mistake(
                f"slurm.components.{index}.gpus_per_node" if config.slurm.components else "placement",
                None,
                f"{component.gpus_per_node} GPUs per node",
                f"at most {site.gpus_per_node} (gpus_per_node of the site file)",
                "spread the run over more nodes: raise num_nodes and lower trainers_per_node or engines_per_node",
            )


def _memory(config: RunConfig, site: Site) -> Iterator[Mistake]:
    """Phases that the site's GPUs do not hold, where it says what those have."""
    if not on_cpu(config, site):
        yield from refusals(config, site_gpu(site))
