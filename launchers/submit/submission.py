"""A run and where it is to go, resolved once: every check takes the submission, and none looks anything up again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from common.mistake import Mistake, MistakesError, Wrong
from core.config.schema import RunConfig
from core.planner import Device, MemoryPlan, plan_memory
from hpc.sbatch.job import JobSpec
from hpc.site.files import Site
from hpc.slurm.options import IN_COMPONENT, IN_REWARDS, IN_TRAINERS, refuse_options
from hpc.slurm.reserved import reserved_variable
from launchers.submit.job_plan import JobPlan, make_plan, task_command
from launchers.submit.shared_paths import unshared
from modelcfg import ModelShape


class Refused(MistakesError):
    """A submission with mistakes. `str()` gives all of them, one a line."""

    def __init__(self, name: str, mistakes: Sequence[Mistake]) -> None:
        super().__init__(f"{name} cannot be submitted,", mistakes)


@dataclass(frozen=True)
class Submission:
    """Made by `make_submission`.

    Attributes:
        config: the run file, checked by itself.
        site: `python` filled in.
        site_file: where it was read from; None: all defaults.
        plan: who runs where.
        shape: of the model; None: it cannot be known here.
        device: what each phase has to fit into; None: it is not known.
    """

    config: RunConfig
    site: Site
    site_file: Path | None
    plan: JobPlan
    shape: ModelShape | None
    device: Device | None

    @cached_property
    def memory(self) -> MemoryPlan | None:
        """What each phase needs of the device; None if shape or device are not known."""
        if self.shape is None or self.device is None:
            return None
        return plan_memory(self.config, self.shape, self.device)

    def job(self, run_dir: Path) -> JobSpec:
        """The job, with what every task runs.

        Raises:
            Refused: the parts do not make a job.
        """
        try:
            return self.plan.job(run_dir, task_command(self.site.python or "python3"))
        except Wrong as wrong:
            raise Refused(self.config.name, [wrong.at("")]) from wrong


def make_submission(
    config: RunConfig,
    site: Site,
    *,
    shape: ModelShape | None = None,
    device: Device | None = None,
    site_file: Path | None = None,
) -> Submission:
    """The submission of a checked run file on a site; whether the site grants it is for `site_rules` to say.

    Raises:
        Refused: no job can be made of it.
    """
    site = site.model_copy(update={"python": site.interpreter})
    try:
        plan = make_plan(config, site)
    except Wrong as wrong:
        raise Refused(config.name, list(job_mistakes(config, site)) or [wrong.at("")]) from wrong
    return Submission(config, site, site_file, plan, shape, device)


def job_mistakes(config: RunConfig, site: Site) -> Iterator[Mistake]:
    """Variables and options of sbatch that the run file may not set on this site."""
    for name in config.slurm.environment:
        if (reason := reserved_variable(name)) is not None:
            wanted = "a variable that is yours to set"
            yield Mistake(f"slurm.environment.{name}", None, f"the variable {name}", wanted, reason)
    askers = {"trainers": IN_TRAINERS, "rewards": IN_REWARDS}
    for index, component in enumerate(config.slurm.components):
        asker = askers.get(component.role, IN_COMPONENT)
        for option, wrong in refuse_options(component.sbatch, asker, site.plugin_options):
            yield wrong.at(f"slurm.components.{index}.sbatch.{option}")


def run_dir_mistake(submission: Submission, run_dir: Path, kinds: Mapping[Path, str]) -> Mistake | None:
    """Why the nodes would not see the run directory; None if they may."""
    return unshared(run_dir, submission.site.shared_filesystems, kinds)


def chain_length(submission: Submission) -> int:
    """How many jobs are submitted: one that requeues itself, or a chain where the site forbids that."""
    return 1 if submission.site.requeue else submission.config.slurm.chain


def next_in_chain(job: JobSpec, before: str | None) -> JobSpec:
    """The job, to start when the job `before` has ended, however it ended."""
    return job if before is None else replace(job, dependency=f"afterany:{before}")
