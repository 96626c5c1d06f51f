"""Jobs for the tests of script texts: one per kind of script."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hpc.sbatch.job import RUN_DIR, JobSpec
from hpc.site.schema import Container, CpuNodes, Site
from hpc.slurm.component import Component

SITE = Site(
    partition="gpu",
    account="p1",
    qos="normal",
    constraint="h100&ib",
    cpu_nodes=CpuNodes(partition="cpu", account="p1"),
    gpu_type="h100",
    nodes_exclude=("n7", "rack3-[01-04]"),
    modules=("cuda/13", "gcc/12"),
    setup=("ulimit -n 65536",),
    environment={"NCCL_IB_HCA": "mlx5_0:1,mlx5_1:1", "MOTD": 'it\'s "$5"'},
    sbatch={"reservation": "night", "oversubscribe": ""},
)
TRAINERS = Component("trainers", nodes=2, cpus_per_task=64, gpus_per_node=8, mem="0", exclusive=True)
REWARDS = Component("rewards", nodes=1, cpus_per_task=16, mem="64G", options={"tmp": "10G"})
JOB = JobSpec(
    name="math",
    components=(TRAINERS,),
    time_minutes=90,
    command=("/opt/venv/bin/python", "-m", "launchers.node.slurm_task", "--run-dir", RUN_DIR),
    site=SITE,
    run_dir=Path("/runs/math"),
    code_dir=Path("/code/ebbtide"),
)
HET = replace(JOB, components=(TRAINERS, REWARDS), exclude=("n9",), environment={"OMP_NUM_THREADS": "8"})
EVEN = replace(JOB, components=(replace(TRAINERS, cpus_per_task=16), REWARDS), site=Site())
HOSTILE = Path('/runs/my run\'s "best" $HOME #1 `id` 50%j é')
PYXIS = Container(
    runtime="pyxis",
    image="nvcr.io#nvidia/pytorch:26.01-py3",
    mounts=("/data:/mnt/data:ro", "/models"),
    environment={"HF_HOME": "/models/hf"},
    options=("--container-writable",),
)
APPTAINER = Container(
    runtime="apptainer",
    image="/images/my image.sif",
    mounts=("/data:/mnt/data:ro", "/models"),
    environment={"HF_HOME": "/models/hf", "LIST": "a,b"},
    options=("--no-home", "--writable-tmpfs"),
)
JOBS = {
    "plain": replace(JOB, site=Site(), components=(Component("trainers"),), code_dir=None),
    "ordinary": JOB,
    "heterogeneous": HET,
    "heterogeneous_same_cpus": EVEN,
    "heterogeneous_forbidden": replace(HET, heterogeneous=False),
    "no_requeue": replace(JOB, requeue=False, dependency="afterany:17", comment="second of three"),
    "array": replace(JOB, site=Site(), array_run_dirs=tuple(Path(f"/runs/sweep/{n} of 3") for n in range(3))),
    "hostile": replace(
        JOB, site=Site(), run_dir=HOSTILE, code_dir=HOSTILE / "code", command=("run it", "a'b", RUN_DIR)
    ),
    "pyxis": replace(HET, site=Site(container=PYXIS)),
    "apptainer": replace(HET, site=Site(container=APPTAINER, gpu_option="gpus-per-node", gpu_type="a100")),
    "options": replace(
        HET,
        components=(
            replace(TRAINERS, options={"switches": "1", "reservation": "day"}),
            replace(REWARDS, account="p2", qos="low", exclusive=True, options={"nice": "", "comment": 'it\'s "5"'}),
        ),
        site=SITE.model_copy(update={"srun": {"mpi": "none", "network": "no vni", "overlap": ""}}),
    ),
    "submitit": replace(
        JOB,
        site=Site(),
        run_dir=Path("/logs"),
        task_stdout="/logs/100%% mine/%j_%t_log.out",
        task_stderr="/logs/100%% mine/%j_%t_log.err",
        verdict=False,
    ),
}
