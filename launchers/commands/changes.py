"""A run that goes on, held against the files that it has used so far."""

from __future__ import annotations

from typing import Annotated

import typer

from core.run_dir.run_directory import RunDirectory
from launchers.commands.terminal import note, refuse

AcceptChanges = Annotated[
    bool,
    typer.Option("--accept-changes", help="Go on although data, templates or model are no longer what they were."),
]


def compare_files(directory: RunDirectory, *, accept: bool) -> None:
    """Say what has changed; where the run would make other samples, end the command unless the user accepts it."""
    from launchers.attempts.changed_files import changed_files, decides_samples
    from launchers.attempts.provenance import newest_files, settings_of
    from launchers.attempts.user_files import keep_user_files

    before = newest_files(directory)
    found = list(changed_files(before, keep_user_files(settings_of(directory), None))) if before else []
    grave = [mistake for mistake in found if decides_samples(mistake)]
    if grave and not accept:
        refuse(grave)
    for mistake in found:
        note(f"changed since the attempt before: {mistake.key}: {mistake.found}")
