"""Options of sbatch and srun that a user may add to a job; the others have a key of their own, or are set by ebbtide.

Who asks decides which key is named: the `sbatch` of a component in the run file (of the trainers, of rewards, or of
another one), `sbatch` and `srun` of the site file, or the options of a `Component` in Python.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from common.mistake import Wrong
from common.nearest import nearest
from hpc.slurm.option_names import SBATCH, SRUN, Takes

IN_TRAINERS, IN_REWARDS, IN_COMPONENT = "trainers", "rewards", "component"
IN_SITE, IN_SRUN, IN_PYTHON = "site", "srun", "python"
SRUN_OPTIONS = ("--kill-on-bad-exit=1", "--wait=60", "--unbuffered", "--label", "--export=ALL", "--cpu-bind=none")
"""Of the one srun of a job: if a task fails all end, logs are not held back, and a task, a node agent with many
children, is bound to no core."""

COMPONENT, RUN, SITE = "on the component in the run file", "in the run file", "in the site file"
_ONE_TASK = "one task runs on each node: its node agent"
_OWN_LOGS = "each process has a log of its own in the run directory"
_NOT_THE_JOB = "it changes what the command does, not the job"
_CONTAINER = "the section container of the site file sets it"
_OWN = {
    **dict.fromkeys(("ntasks", "ntasks-per-core", "ntasks-per-gpu", "ntasks-per-node", "ntasks-per-socket"), _ONE_TASK),
    **dict.fromkeys(("error", "input", "open-mode", "output"), _OWN_LOGS),
    **dict.fromkeys(("help", "parsable", "quiet", "test-only", "usage", "verbose", "version", "wrap"), _NOT_THE_JOB),
    "array": "job arrays are made by `ebbtide sweep`",
    "chdir": "all paths of the job script are absolute",
    "clusters": "the other commands ask the cluster of this login node",
    "export-file": "the job script sets the variables",
    "gpu-bind": "each process gets the GPUs that the layout gives it",
    "kill-on-bad-exit": "if one process of a run fails, all end",
    "wait": "`ebbtide submit --wait` waits for the run",
}
OWN_OF_SRUN = {
    **_OWN,
    **dict.fromkeys(("container-env", "container-image", "container-mounts", "container-name"), _CONTAINER),
    **dict.fromkeys(("het-group", "jobid", "multi-prog", "nodes", "nodelist", "relative", "exclude"), _ONE_TASK),
    **dict.fromkeys(("immediate", "no-allocate", "preserve-env", "pty"), _NOT_THE_JOB),
    "cpu-bind": "a task is a node agent with many children, so it is bound to no core",
    "export": "all tasks see what the job script exports",
    "label": "it is always set",
    "unbuffered": "it is always set",
    "wait": "if one task has ended, the others get a minute",
}
_GPU_REQUESTS = ("gpus", "gpus-per-node", "gpus-per-socket", "gpus-per-task", "gres")
_OWN_OF_REWARDS = {**_OWN, **dict.fromkeys(_GPU_REQUESTS, "reward workers use no GPUs")}
_IN_ANY_FILE = {
    **dict.fromkeys(_GPU_REQUESTS, ("gpus_per_node: 1", COMPONENT)),
    "cpus-per-task": ("cpus_per_task: 8", COMPONENT),
    "dependency": ("slurm.chain: 4", RUN),
    "exclusive": ("exclusive: true", COMPONENT),
    "job-name": ("name: math", RUN),
    "mem": ("mem: 64G", COMPONENT),
    "no-requeue": ("requeue: false", SITE),
    "nodes": ("placement.num_nodes: 2", RUN),
    "requeue": ("requeue: true", SITE),
    "signal": ("slurm.signal_s: 300", RUN),
}
_IN_THE_RUN_FILE = {
    **_IN_ANY_FILE,
    "constraint": ("constraint: h100", COMPONENT),
    "exclude": ("slurm.exclude: [n7]", RUN),
    "export": ("slurm.environment: {NAME: value}", RUN),
    "partition": ("partition: gpu", COMPONENT),
    "time": ('slurm.time: "04:00:00"', RUN),
}
_HOMES = {
    IN_TRAINERS: _IN_THE_RUN_FILE,
    IN_COMPONENT: {**_IN_THE_RUN_FILE, "nodes": ("nodes: 2", COMPONENT)},
    IN_REWARDS: {name: home for name, home in _IN_THE_RUN_FILE.items() if name not in _GPU_REQUESTS}
    | {"nodes": ("nodes: 2", COMPONENT)},
    IN_SITE: {
        **_IN_ANY_FILE,
        "account": ("account: p1", SITE),
        "constraint": ("constraint: h100", SITE),
        "exclude": ("nodes_exclude: [n7]", SITE),
        "export": ("environment: {NAME: value}", SITE),
        "partition": ("partition: gpu", SITE),
        "qos": ("qos: normal", SITE),
        "time": ('time: "04:00:00"', SITE),
    },
    IN_PYTHON: {
        **{name: (f"{name}=", "of the Component") for name in ("account", "constraint", "mem", "nodes", "partition")},
        **dict.fromkeys(_GPU_REQUESTS, ("gpus_per_node=", "of the Component")),
        "cpus-per-task": ("cpus_per_task=", "of the Component"),
        "exclusive": ("exclusive=True", "of the Component"),
        "ntasks-per-node": ("tasks_per_node=", "of the Component"),
        "qos": ("qos=", "of the Component"),
        "dependency": ("dependency=", "of the job"),
        "exclude": ("exclude=", "of the job"),
        "export": ("environment=", "of the job"),
        "job-name": ("name=", "of the job"),
        "no-requeue": ("requeue=False", "of the job"),
        "requeue": ("requeue=True", "of the job"),
        "signal": ("signal_lead_s=", "of the job"),
        "time": ("time_minutes=", "of the job"),
    },
}


def refuse_options(options: Mapping[str, str], asker: str, plugins: Iterable[str] = ()) -> Iterator[tuple[str, Wrong]]:
    """Each option that may not be set there, with the reason.

    Args:
        options: long options without dashes; a value of the empty text is none.
        plugins: options that the cluster's Slurm knows beside its own.
    """
    known = {**_table(asker), **dict.fromkeys(plugins, Takes.MAYBE)}
    for option, value in options.items():
        try:
            refuse_option(option, asker)
            _refuse_unknown(option, known, asker)
            refuse_value(option, value, asker)
        except Wrong as wrong:
            yield option, wrong


def refuse_option(option: str, asker: str) -> None:
    """Refuse an option that a user may not set there.

    Raises:
        Wrong: there is a key for it, ebbtide sets it, or it is no long option without dashes.
    """
    if not re.fullmatch(r"[a-z][a-z0-9-]*", option):
        bare = nearest(option.strip("-").replace("_", "-"), _table(asker)) or "reservation"
        raise Wrong(f"the option {option!r}", "a long option without its dashes in front", f"write for example {bare}")
    if home := _HOMES.get(asker, {}).get(option):
        snippet, place = home
        raise Wrong(f"--{option}", "an option without a key of its own", f"set `{snippet}` {place}")
    if reason := {IN_SRUN: OWN_OF_SRUN, IN_REWARDS: _OWN_OF_REWARDS}.get(asker, _OWN).get(option):
        raise Wrong(f"--{option}", "an option that ebbtide does not set", f"leave it out: {reason}")
    if asker == IN_SRUN and option in SBATCH and option not in SRUN:
        raise Wrong(f"--{option}", "an option of a step", _for_the_job(option))


def refuse_value(option: str, value: str, asker: str) -> None:
    """Refuse a value where the option takes none, and a missing one where it takes one.

    Raises:
        Wrong: it is not.
    """
    takes = _table(asker).get(option, Takes.MAYBE)
    if value and takes is Takes.NOTHING:
        raise Wrong(f"the value {value!r} of --{option}", "no value: it is a switch", f"write `{option}: ''`")
    if not value and takes is Takes.VALUE:
        raise Wrong(f"--{option} without a value", "a value", f"write `{option}: VALUE`, or leave it out")


def options_as_words(options: Mapping[str, str]) -> list[str]:
    """`--name=value` of each, or `--name`, in the order of their names."""
    return [f"--{name}={value}" if value else f"--{name}" for name, value in sorted(options.items())]


def option_as_key(name: str) -> str | None:
    """What to do about an option of sbatch that stands in the site file as a key; None if it is none."""
    option = name.replace("_", "-")
    return _for_the_job(option) if option in SBATCH else None


def _for_the_job(option: str) -> str:
    try:
        refuse_option(option, IN_SITE)
    except Wrong as wrong:
        return wrong.remedy
    return f"it belongs to the job: set `{_entry('sbatch', option, SBATCH)}` {SITE}"


def _entry(key: str, option: str, table: Mapping[str, Takes]) -> str:
    value = "''" if table[option] is Takes.NOTHING else "VALUE"
    return f"{key}: {{{option}: {value}}}"


def _refuse_unknown(option: str, known: Mapping[str, Takes], asker: str) -> None:
    if option in known:
        return
    near, command = nearest(option, known), "srun" if asker == IN_SRUN else "sbatch"
    first = f"did you mean {near}? Or " if near else ""
    remedy = f"{first}if a plugin of this cluster's Slurm has it, set `plugin_options: [{option}]` {SITE}"
    if option in SRUN:
        remedy = f"it belongs to the step: set `{_entry('srun', option, SRUN)}` {SITE}"
    raise Wrong(f"--{option}", f"a long option of {command}", remedy)


def _table(asker: str) -> Mapping[str, Takes]:
    return SRUN if asker == IN_SRUN else SBATCH
