"""A job as the text of its sbatch script. Pure: the same job gives the same text on any machine."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from common.mistake import Wrong
from common.slurm_time import format_time
from hpc.sbatch import container
from hpc.sbatch.job import RUN_DIR, JobSpec
from hpc.sbatch.quote import directive, expanded, log_file, one_line, word
from hpc.sbatch.request import request_lines, requests
from hpc.slurm.component import Component
from hpc.slurm.options import SRUN_OPTIONS, options_as_words


def sbatch_text(job: JobSpec, about: Sequence[str] = ()) -> str:
    """The whole script. `about` are comment lines for its head.

    Raises:
        Wrong: (a ValueError) a path, name or value that a job script cannot spell.
    """
    parts = [_head(job, about), directives(job), body(job)]
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def directives(job: JobSpec) -> list[str]:
    """The `#SBATCH` lines, components apart from each other."""
    lines = _job_lines(job)
    for number, component in enumerate(requests(job)):
        lines += ["", "#SBATCH hetjob"] if number else []
        lines += ["", f"# component {number}: {_nodes(component)}"] if job.num_het_components > 1 else []
        lines += _repeated_lines(job) if number else []
        lines += request_lines(component, job)
    return lines


def body(job: JobSpec) -> list[str]:
    """The bash after the `#SBATCH` lines: environment, one srun, and what follows from the verdict."""
    return [*_setup(job), "", *_environment(job), "", *part("job_end"), "", *_srun(job), "", *_ending(job)]


def _head(job: JobSpec, about: Sequence[str]) -> list[str]:
    login = " -l" if job.site.modules else ""  # a login shell knows the command `module`
    comments = [f"# {line}".rstrip() for line in about]
    logs = word(_batch_log_folder(job))
    return [f"#!/bin/bash{login}", *comments, f"# Before sbatch: mkdir -p {logs}    (Slurm does not make it)"]


def _job_lines(job: JobSpec) -> list[str]:
    """Lines that hold for the whole job; on component 0 they do for all components."""
    log = job.batch_log
    name = "batch-%A_%a.log" if job.is_array else "batch-%j.log"
    output = log_file(log.parent, log.name) if log else log_file(_batch_log_folder(job), name)
    lines = [directive("job-name", job.name), directive("output", output), directive("open-mode", "append")]
    lines += _repeated_lines(job)
    lines += [directive("requeue" if job.requeue else "no-requeue")]
    for option in ("dependency", "comment"):
        if value := getattr(job, option):
            lines.append(directive(option, value))
    if job.is_array:
        lines.append(directive("array", job.array or f"0-{len(job.array_run_dirs) - 1}"))
    return lines


def _repeated_lines(job: JobSpec) -> list[str]:
    """Lines that each component needs for itself. The signal is for the tasks, not for the batch shell (no B:)."""
    return [directive("time", format_time(job.time_minutes)), directive("signal", f"{job.signal}@{job.signal_lead_s}")]


def _nodes(component: Component) -> str:
    gpus = f" with {component.gpus_per_node} GPUs" if component.gpus_per_node else ""
    return f"{component.name}, {component.nodes} node{'s' if component.nodes > 1 else ''}{gpus}"


def _batch_log_folder(job: JobSpec) -> Path:
    return job.batch_log.parent if job.batch_log else job.run_dir / "slurm"


def _setup(job: JobSpec) -> list[str]:
    site = job.site
    lines = []
    if site.modules:
        modules = " ".join(word(module) for module in site.modules)
        lines.append(f'module load {modules} || {{ echo "ebbtide: module load failed on $HOSTNAME" >&2; exit 1; }}')
    lines += site.setup
    return [*(["# The site's setup.", *lines, ""] if lines else []), "set -u"]


def _environment(job: JobSpec) -> list[str]:
    variables = {**job.site.environment, **job.environment, **container.exports(job)}
    lines = [f"export {name}={word(value, f'variable {name}')}" for name, value in sorted(variables.items())]
    if job.code_dir:
        if ":" in str(job.code_dir):
            raise Wrong(f"a colon in {job.code_dir}", "a path that PYTHONPATH can hold", "move the code")
        lines.append(f"export PYTHONPATH={word(job.code_dir, 'code directory')}${{PYTHONPATH:+:$PYTHONPATH}}")
    return [
        "# What all processes see.",
        *lines,
        *(_run_dir(job) if job.has_run_dir else []),
    ]


def _run_dir(job: JobSpec) -> list[str]:
    """The run directory, and in it the folder of this start of the job."""
    return [
        *_which_run_dir(job),
        "export EBBTIDE_SLURM_DIR=$EBBTIDE_RUN_DIR/slurm/$SLURM_JOB_ID/${SLURM_RESTART_COUNT:-0} # of this start",
        'mkdir -p "$EBBTIDE_SLURM_DIR" || exit 1',
        'rm -f "$EBBTIDE_SLURM_DIR/verdict"',
    ]


def _which_run_dir(job: JobSpec) -> list[str]:
    if not job.array_run_dirs:
        return [f"export EBBTIDE_RUN_DIR={word(job.run_dir, 'run directory')}"]
    folders = [f"  {word(path, 'run directory')}" for path in job.array_run_dirs]
    return ["run_dirs=(", *folders, ")", "export EBBTIDE_RUN_DIR=${run_dirs[$SLURM_ARRAY_TASK_ID]}"]


def _srun(job: JobSpec) -> list[str]:
    stdout = expanded(job.task_stdout) if job.task_stdout else '"$EBBTIDE_SLURM_DIR/task-$SLURM_PROCID.log"'
    stderr = f"2>>{expanded(job.task_stderr)}" if job.task_stderr else "2>&1"
    given = [word(option, "option of srun") for option in options_as_words(job.site.srun)]
    wrapper = f'exec "$@" >>{stdout} {stderr}'
    signals = " ".join(dict.fromkeys(("TERM", job.signal)))
    return [
        "# One srun over everything. Each task writes a log of its own, named after its global rank (in a",
        "# heterogeneous job Slurm's own patterns name the wrong job and the wrong task). A task is a node agent with",
        "# many children, so it is bound to no core; if one fails, all end.",
        *_array("command", [*container.command_prefix(job), *map(_argument, job.command)]),
        "# shellcheck disable=SC2016 # the task expands it",
        f"task={word(wrapper)}",
        *_array("options", [*SRUN_OPTIONS, *given, *container.srun_options(job)]),
        f"trap : {signals} # this shell outlives its tasks; they get these signals from Slurm",
        *_srun_line(job),
        "code=$?",
    ]


def _srun_line(job: JobSpec) -> list[str]:
    """One line for all components, or, where their CPUs per task differ, a part for each."""
    components = requests(job)
    cpus = [f" --cpus-per-task={c.cpus_per_task}" if c.cpus_per_task else "" for c in components]
    task = '"${options[@]}" bash -c "$task" task "${command[@]}"'
    if len(components) == 1:
        return [f"srun{cpus[0]} {task}"]
    if len(set(cpus)) == 1:
        return [f"srun --het-group=0-{len(components) - 1}{cpus[0]} {task}"]
    parts = [f"--het-group={number}{cpus[number]} {task}" for number in range(len(components))]
    return ["srun " + " : \\\n  ".join(parts)]


def _ending(job: JobSpec) -> list[str]:
    if not job.verdict:
        return ['exit "$code"']
    groups = [f'"$SLURM_JOB_ID_HET_GROUP_{number}"' for number in range(job.num_het_components)]
    ids = groups if len(groups) > 1 else ['"$SLURM_JOB_ID"']
    return [
        f"may_requeue={'yes' if job.requeue else 'no'}",
        f"component_ids=({' '.join(ids)})",
        f"excluded_nodes={word(','.join(job.excluded_nodes))}",
        "",
        *part("verdict"),
    ]


def _argument(argument: str) -> str:
    return '"$EBBTIDE_RUN_DIR"' if argument == RUN_DIR else word(argument, "command")


def _array(name: str, words: list[str]) -> list[str]:
    """A bash array, as few lines as it takes; a word is never broken."""
    text = " ".join(words)
    if len(text) < 100:
        return [f"{name}=({text})"]
    return [f"{name}=(", *(f"  {one_line(item, name)}" for item in words), ")"]


@cache
def part(name: str) -> tuple[str, ...]:
    """The lines of one of the `*.bash` files beside this one."""
    text = (Path(__file__).parent / f"{name}.bash").read_text(encoding="utf-8")
    return tuple(textwrap.dedent(text).strip().splitlines())
