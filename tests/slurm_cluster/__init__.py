"""A real Slurm cluster on one machine, for tests: slurmctld, slurmd on several nodes, munge, slurmdbd and a database.

Needs root. Each node is a set of namespaces: an own hostname (n1, n2, …), address, /dev/shm and process table, on a
network that reaches all nodes and this machine; files are shared. Several clusters may run at the same time. From the
shell, in the repository:

    python -m tests.slurm_cluster install                     # apt packages, if they are not there
    eval "$(python -m tests.slurm_cluster start --nodes 3)"   # 3 to 8 s; prints: export SLURM_CONF=…
    srun -N3 hostname
    python -m tests.slurm_cluster kill-node n2                # a crash: every process of n2 is gone
    scontrol update NodeName=n2 State=DOWN Reason=test        # or wait 10 to 30 s until Slurm notices
    python -m tests.slurm_cluster start-node n2               # boot it again
    python -m tests.slurm_cluster stop

`kill-node`, `start-node` and `stop` find the cluster by SLURM_CONF. A cluster also ends with the process given as
`--owner PID`, and after `--lifetime` seconds. Whatever kills its guard, the kernel takes daemons, jobs, namespaces,
network and mounts with it. Slurm makes a requeued job wait 120 s; here it waits `--requeue-delay` seconds (4).

In tests: the fixture `cluster` of tests/slurm/conftest.py, a `Cluster`.
"""

from tests.slurm_cluster.cluster import Cluster, ClusterError, wait_until, why_not
from tests.slurm_cluster.settings import Settings

__all__ = ["Cluster", "ClusterError", "Settings", "wait_until", "why_not"]
