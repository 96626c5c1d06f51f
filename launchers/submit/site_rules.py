"""Run file and site against each other: what the site does not grant, and what is the launcher's own. Asks nobody."""

from __future__ import annotations

from collections.abc import Iterator

from common.mistake import Mistake
from launchers.submit.memory_check import refusals
from launchers.submit.submission import Refused, Submission, job_mistakes


def refuse_disagreements(submission: Submission) -> None:
    """Refuse a run that asks for what the site does not grant.

    Raises:
        Refused: with all mistakes that run file and site together show.
    """
    if mistakes := list(disagreements(submission)):
        raise Refused(submission.config.name, mistakes)


def disagreements(submission: Submission) -> Iterator[Mistake]:
    """What is wrong with the run on this site, in the order of the rules."""
    yield from job_mistakes(submission.config, submission.site)
    yield from time_limit(submission)
    yield from gpus_per_node(submission)
    yield from refusals(submission)


def time_limit(submission: Submission) -> Iterator[Mistake]:
    """One attempt is within the site's longest job."""
    minutes, most = submission.plan.time_minutes, submission.site.max_time_minutes
    if most is not None and minutes > most:
        yield Mistake(
            "slurm.time",
            None,
            f"{minutes} min",
            f"at most {most} min (max_time of the site file)",
            "lower it: a run that needs longer saves itself and goes on in another job",
        )


def gpus_per_node(submission: Submission) -> Iterator[Mistake]:
    """No component asks for more GPUs than a node of the site has."""
    most = submission.site.gpus_per_node
    if most is None:
        return
    for index, component in enumerate(submission.plan.components):
        if component.gpus_per_node > most:
            named = submission.config.slurm.components
            yield Mistake(
                f"slurm.components.{index}.gpus_per_node" if named else "placement",
                None,
                f"{component.gpus_per_node} GPUs per node",
                f"at most {most} (gpus_per_node of the site file)",
                "spread the run over more nodes: raise num_nodes and lower trainers_per_node or engines_per_node",
            )
