"""The ready-made scripts beside this file, each rendered from a job below: `python -m hpc.sbatch.templates --write`.

For people who submit by hand. `ebbtide sbatch RUN.yaml` prints the same text with the values of a run and a site.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from hpc.sbatch.job import RUN_DIR, JobSpec
from hpc.sbatch.text import sbatch_text
from hpc.site.schema import Site
from hpc.slurm.component import Component

FOLDER = Path(__file__).parent
EDIT = (
    "Copy it, then edit account, partition, time, sizes, and the two paths below `What all processes see`.",
    "`ebbtide sbatch RUN.yaml` prints the same script with the values of a run file and a site file.",
)
CHAIN = (
    "For clusters without requeue. Submit it several times: `singleton` lets one job of this name run at a time,",
    "and each goes on where the one before stopped. Once the run is finished, the rest end at once.",
)
SITE = Site(partition="gpu", account="my-project", environment={"OMP_NUM_THREADS": "8"})
TRAINERS = Component("trainers", nodes=2, cpus_per_task=64, gpus_per_node=8, mem="0", exclusive=True)
REWARDS = Component("rewards", partition="cpu", cpus_per_task=32, mem="128G")
ENGINES = Component("engines", nodes=2, cpus_per_task=64, gpus_per_node=8, mem="0", exclusive=True)
RUN = Path("/path/to/runs/my-run")
JOB = JobSpec(
    name="my-run",
    components=(TRAINERS,),
    time_minutes=24 * 60,
    command=("python3", "-m", "launchers.node.slurm_task", "--run-dir", RUN_DIR),
    site=SITE,
    run_dir=RUN,
    code_dir=Path("/path/to/ebbtide"),
    signal_lead_s=600,
)
SWEEP = RUN.with_name("my-sweep")


def _job_of(name: str) -> tuple[JobSpec, tuple[str, ...]]:
    if name == "colocated_single_node":
        about = "Trainer ranks and engines share the GPUs of one node, in turns."
        return replace(JOB, components=(replace(TRAINERS, nodes=1),)), (about,)
    if name == "colocated_multi_node":
        return JOB, ("Trainer ranks and engines share the GPUs of each node, in turns.",)
    if name == "heterogeneous_rewards":
        about = "As colocated_multi_node, and reward workers on a CPU node: one heterogeneous job, two components."
        return replace(JOB, components=(TRAINERS, REWARDS)), (about,)
    if name == "disaggregated_engines":
        about = (
            "Trainer ranks on two nodes, engines with GPUs of their own on two others, reward workers on a CPU node."
        )
        return replace(JOB, components=(TRAINERS, ENGINES, REWARDS)), (about,)
    if name == "dependency_chain":
        return replace(JOB, requeue=False, dependency="singleton"), CHAIN
    about = "One job array over the run directories of a sweep, two at a time; each element requeues by itself."
    runs = tuple(SWEEP / str(number) for number in range(4))
    one_node = (replace(TRAINERS, nodes=1),)
    job = replace(JOB, name="my-sweep", components=one_node, run_dir=SWEEP, array_run_dirs=runs, array="0-3%2")
    return job, (about,)


NAMES = (
    "colocated_single_node",
    "colocated_multi_node",
    "heterogeneous_rewards",
    "disaggregated_engines",
    "dependency_chain",
    "array_sweep",
)


def templates() -> Mapping[str, str]:
    """The text of each template by its name."""
    texts = {}
    for name in NAMES:
        job, about = _job_of(name)
        texts[name] = sbatch_text(job, (*about, "", *EDIT))
    return texts


def main() -> None:
    """Writes the templates with `--write`, else prints their names."""
    for name, text in templates().items():
        path = FOLDER / f"{name}.sbatch"
        if "--write" in sys.argv[1:]:
            path.write_text(text, encoding="utf-8")
        print(path)


if __name__ == "__main__":
    main()
