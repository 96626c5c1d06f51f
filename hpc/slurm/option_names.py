"""Long options of sbatch and srun (Slurm 20.11 to 25.05), and whether they take a value."""

from __future__ import annotations

from enum import Enum


class Takes(Enum):
    """Whether an option takes a value."""

    VALUE = "a value"
    MAYBE = "a value or none"
    NOTHING = "no value"


def _table(value: str, maybe: str, nothing: str) -> dict[str, Takes]:
    words = {Takes.VALUE: value, Takes.MAYBE: maybe, Takes.NOTHING: nothing}
    return {name: takes for takes, names in words.items() for name in names.split()}


SBATCH = _table(
    value="""
    account acctg-freq array batch bb bbf begin chdir cluster-constraint clusters comment constraint container
    container-id core-spec cores-per-socket cpu-freq cpus-per-gpu cpus-per-task deadline delay-boot dependency
    distribution error exclude export export-file extra extra-node-info gid gpu-bind gpu-freq gpus gpus-per-node
    gpus-per-socket gpus-per-task gres gres-flags hint input job-name kill-on-invalid-dep licenses mail-type mail-user
    mcs-label mem mem-bind mem-per-cpu mem-per-gpu mincpus network nodefile nodelist nodes ntasks ntasks-per-core
    ntasks-per-gpu ntasks-per-node ntasks-per-socket open-mode output partition power prefer priority profile qos
    reservation segment signal sockets-per-node switches thread-spec threads-per-core time time-min tmp tres-bind
    tres-per-task uid wait-all-nodes wckey wrap
    """,
    maybe="exclusive get-user-env nice no-kill oom-kill-step propagate",
    nothing="""
    consolidate-segments contiguous help hold ignore-pbs no-requeue overcommit oversubscribe parsable quiet reboot
    requeue spread-job spread-segments stepmgr test-only usage use-min-nodes verbose version wait
    """,
)
SRUN = _table(  # those that mean something for a step inside a job; further ones of srun ask for a job
    value="""
    acctg-freq cpu-freq distribution epilog extra-node-info gpu-freq gres-flags hint mem mem-bind mpi network profile
    prolog slurmd-debug task-epilog task-prolog threads-per-core tres-bind
    """,
    maybe="nice propagate resv-ports send-libs",
    nothing="disable-status exact overcommit overlap quit-on-interrupt",
)
