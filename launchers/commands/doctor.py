"""`ebbtide doctor`: what the cluster has, a first site file from it, and whether a site file fits."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from common.slurm_time import format_time
from core.sandbox.sandbox import find_way
from core.sandbox.session import SandboxUnavailable
from hpc.node.probe import container_runtimes, ephemeral_overlap, network_interfaces
from hpc.site.cluster_facts import ClusterFacts, ask_cluster
from hpc.site.first import site_text
from hpc.slurm.commands import SlurmError
from launchers.attempts.attempt import RunBusy, locked, remove_what_dead_attempts_left
from launchers.attempts.exit_codes import FAILED
from launchers.commands.cluster import load_checked_site
from launchers.commands.directories import runs_in
from launchers.commands.terminal import errors, fail, say
from launchers.node.temporary import base_folder, common_folder, remove_what_dead_ones_left
from launchers.submit.site_fit import site_mistakes, site_notices

EXAMPLE = "ebbtide doctor --write site.yaml"


def command(
    site: Annotated[Path | None, typer.Option("--site", help="Compare this site file with the cluster.")] = None,
    write: Annotated[Path | None, typer.Option("--write", help="Write a first site file here.")] = None,
) -> None:
    """Ask Slurm what the cluster has and allows; print a first site file for it, or check the one there is.

    Says whether there is a sandbox for strangers' programs on this machine. Asks sinfo, scontrol and sacct once each.
    The exit code is 2 if the site file does not fit. What killed runs of yours have left on this machine is removed.
    """
    for path in _remove_leftovers():
        errors.print(f"removed: {path}, left by a run that was killed", highlight=False, markup=False, soft_wrap=True)
    errors.print(sandbox_text(), highlight=False, markup=False, soft_wrap=True)
    checked = load_checked_site(site) if site is not None else None
    if write is not None and write.exists():
        fail(f"--write: found {write}; wanted a new file: remove it, or check it with `ebbtide doctor --site {write}`")
    try:
        facts = ask_cluster()
    except SlurmError as error:
        fail(str(error), FAILED)
    errors.print(_table(facts))
    if checked is not None and site is not None:
        notices = site_notices(checked, facts, network_interfaces(), ephemeral_overlap(checked.ports))
        for notice in notices:
            errors.print(f"notice: {notice}", highlight=False, markup=False, soft_wrap=True)
        if mistakes := site_mistakes(checked, facts):
            fail("\n".join([f"{site} does not fit this cluster:", *(f"  {mistake}" for mistake in mistakes)]))
        say(f"{site} fits this cluster")
        return
    text = site_text(facts, network_interfaces(), container_runtimes())
    if write is None:
        sys.stdout.write(text)
        return
    write.write_text(text, encoding="utf-8")
    say(f"written: {write}. Fill in what Slurm cannot know, then: ebbtide doctor --site {write}")


def sandbox_text() -> str:
    """Whether strangers' programs can be run on this machine, and in which way, as a line."""
    try:
        return f"sandbox: works on this machine, by {find_way()}"
    except SandboxUnavailable as error:
        return f"sandbox: none on this machine, which tools and rewards that run programs would need: {error}"


def _remove_leftovers() -> list[Path]:
    """Temporary folders and shared memory of dead agents on this machine, keys of dead attempts in runs/."""
    found = remove_what_dead_ones_left(base_folder(common_folder()))
    for directory in runs_in(Path("runs")):
        with suppress(OSError, RunBusy), locked(directory):
            found += remove_what_dead_attempts_left(directory)
    return found


def _table(facts: ClusterFacts) -> Table:
    abilities = (
        f"{'' if facts.heterogeneous else 'no '}heterogeneous jobs, sacct {'works' if facts.accounting else 'fails'}"
    )
    table = Table(
        title=f"{facts.name}, Slurm {facts.version}: {abilities}", box=SIMPLE_HEAD, title_justify="left", pad_edge=False
    )
    for heading in ("partition", "nodes", "CPUs", "memory", "GPUs", "time limit"):
        table.add_column(heading, justify="left" if heading == "partition" else "right")
    for partition in facts.partitions:
        name = partition.name + (" (default)" if partition.default else "") + ("" if partition.up else " (down)")
        limit = "none" if partition.max_minutes is None else format_time(partition.max_minutes)
        for group in partition.nodes:
            kinds = f" {'/'.join(sorted(group.gpu_types))}" if group.gpu_types else ""
            sizes = (str(group.count), str(group.cpus), f"{group.memory_mib / 1024:.0f} GiB", f"{group.gpus}{kinds}")
            table.add_row(name, *sizes, limit)
    return table
