"""What the attempts of a run were made with, as they noted it."""

from __future__ import annotations

from launchers.attempts.provenance import Provenance, read_provenance
from launchers.report.run_facts import RunFacts


def made_with(run: RunFacts) -> list[tuple[int, Provenance]]:
    """Number and provenance of each attempt that noted it, the newest first."""
    numbers = [attempt.number for attempt in reversed(run.history.attempts)]
    found = [(number, read_provenance(run.directory.attempt(number))) for number in numbers]
    return [(number, one) for number, one in found if one is not None]


def newest(run: RunFacts) -> Provenance | None:
    """That of the newest attempt that noted it; None: none has."""
    return next((one for _, one in made_with(run)), None)
