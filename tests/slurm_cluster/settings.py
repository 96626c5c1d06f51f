"""What a test cluster consists of, and the configuration files that say so to Slurm. Pure: text in, text out."""

from __future__ import annotations

import json
import os
import platform
import socket
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.slurm_cluster.people import GROUP, Person, needed, openings, people

PLUGINS = f"/usr/lib/{platform.machine()}-linux-gnu/slurm-wlm"
SLURMS_KILL_WAIT_S = 30  # what Slurm has where its configuration says nothing


@dataclass(frozen=True)
class Settings:
    """One cluster; `index` tells clusters of one machine apart (network, ports) and is found while starting."""

    folder: str
    num_nodes: int = 3
    cpus: int = 8  # per node, as Slurm is told; the machine may have fewer
    memory_mib: int = 16000
    gpus: int = 0  # per node, fake: device files that are clones of /dev/null
    real_gpus: tuple[int, ...] = ()  # instead: the first nodes have one each of this machine's, /dev/nvidiaN
    accounting: bool = True  # slurmdbd and a database, so that sacct works
    heterogeneous: bool = True  # het jobs need the backfill scheduler; False: a cluster that cannot run them
    requeue: bool = True
    requeue_delay_s: float | None = 4.0  # None: Slurm's own 120 s before a requeued job may start again
    kill_wait_s: int = 5  # from SIGTERM to SIGKILL when a job is to end
    num_people: int = 0  # ordinary users; with any, the nodes see no folder that is closed to them (people.py)
    index: int = 0

    @property
    def nodes(self) -> tuple[str, ...]:
        return tuple(f"n{k}" for k in range(1, self.num_nodes + 1))

    @property
    def gpu_of(self) -> dict[str, int]:
        """The nodes that have a real GPU, and its number. Nodes may share one, as a spare node does with another."""
        return dict(zip(self.nodes, self.real_gpus, strict=False))

    @property
    def people(self) -> tuple[Person, ...]:
        """The ordinary users, by whatever node they log in."""
        return people(Path(self.folder), self.index, self.num_people)

    @property
    def host_address(self) -> str:
        """Where the nodes reach this machine: slurmctld and everything that is submitted from here."""
        return f"10.77.{self.index}.254"

    @property
    def interface(self) -> str:
        """This machine's end of the cable to the nodes."""
        return f"ebtslurm{self.index}"

    @property
    def controller_port(self) -> int:
        """slurmctld; the next three are slurmd (on the nodes' own addresses), slurmdbd and the database."""
        return 17000 + 10 * self.index

    def address(self, node: str) -> str:
        return f"10.77.{self.index}.{int(node.removeprefix('n'))}"

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Settings:
        fields = json.loads(text)
        return cls(**{**fields, "real_gpus": tuple(fields["real_gpus"])})


def hosts_file(settings: Settings) -> str:
    """/etc/hosts of every node: all nodes, and this machine under its own name.

    Each also as an IPv4 address mapped to IPv6: torch's store looks names up by it, and without an answer here asks a
    name server, which nobody runs, for 10 s.
    """
    named = [(settings.host_address, socket.gethostname())] + [
        (settings.address(node), node) for node in settings.nodes
    ]
    lines = [f"{address} {name}\n::ffff:{address} {name}" for address, name in named]
    return "\n".join(["127.0.0.1 localhost", *lines]) + "\n"


def slurm_conf(settings: Settings) -> str:
    """slurm.conf: quick decisions, short waits, no cgroups, everything below the cluster's folder."""
    lines = {**_identity(settings), **_plugins(settings), **_times(settings), **_accounting(settings)}
    return "\n".join([f"{key}={value}" for key, value in lines.items()] + _machines(settings)) + "\n"


def _identity(settings: Settings) -> dict[str, object]:
    folder = settings.folder
    return {
        "ClusterName": "ebbtide",
        "SlurmctldHost": f"{socket.gethostname().split('.')[0]}({settings.host_address})",
        "SlurmUser": "root",
        "SlurmdUser": "root",
        "SlurmctldPort": settings.controller_port,
        "SlurmdPort": settings.controller_port + 1,
        "StateSaveLocation": f"{folder}/state",
        "SlurmdSpoolDir": f"{folder}/spool/%n",
        "SlurmctldPidFile": f"{folder}/run/slurmctld.pid",
        "SlurmdPidFile": f"{folder}/run/slurmd.%n.pid",
        "SlurmctldLogFile": f"{folder}/log/slurmctld.log",
        "SlurmdLogFile": f"{folder}/log/slurmd.%n.log",
        "AuthType": "auth/munge",
        "AuthInfo": f"socket={folder}/munge/socket",
        "CredType": "cred/munge",
        "PluginDir": PLUGINS,
    }


def _plugins(settings: Settings) -> dict[str, object]:
    return {
        "ProctrackType": "proctrack/linuxproc",
        "TaskPlugin": "task/none",
        "JobAcctGatherType": "jobacct_gather/none",
        "SwitchType": "switch/none",
        "MpiDefault": "none",
        "SelectType": "select/cons_tres",
        "SelectTypeParameters": "CR_Core",
        "GresTypes": "gpu",
        "SlurmdParameters": "config_overrides",
        "SchedulerType": "sched/backfill" if settings.heterogeneous else "sched/builtin",
        # het jobs are started by the backfill scheduler only, by default every 30 s; a job whose launch a busy machine
        # has failed is tried again, not held
        "SchedulerParameters": "bf_interval=1,bf_continue,sched_interval=2,sched_min_interval=0,"
        "batch_sched_delay=0,bf_min_age_reserve=0,bf_hetjob_immediate,nohold_on_prolog_fail",
        "JobRequeue": int(settings.requeue),
        "PropagateResourceLimits": "NONE",
        **({"TaskProlog": _task_prolog(settings)} if settings.real_gpus else {}),
    }


def _task_prolog(settings: Settings) -> Path:
    return Path(settings.folder) / "task_prolog.sh"


def _times(settings: Settings) -> dict[str, object]:
    return {
        "ReturnToService": 2,  # a node that boots again is used again
        "SlurmdTimeout": 10,
        "SlurmctldTimeout": 10,
        "MessageTimeout": 10,
        "KillWait": settings.kill_wait_s,
        "CompleteWait": 0,
        "UnkillableStepTimeout": 120,  # a busy machine takes its time: a node whose step stays too long is drained
        "BatchStartTimeout": 60,  # likewise: after Slurm's own 10 s the job counts as lost, and waits again
        "InactiveLimit": 0,
        "MinJobAge": 300,
        "MaxArraySize": 1001,
    }


def _accounting(settings: Settings) -> dict[str, object]:
    if not settings.accounting:
        return {"AccountingStorageType": "accounting_storage/none", "JobCompType": "jobcomp/none"}
    return {
        "AccountingStorageType": "accounting_storage/slurmdbd",
        "AccountingStorageHost": "127.0.0.1",
        "AccountingStoragePort": settings.controller_port + 2,
        "AccountingStoragePass": f"{settings.folder}/munge/socket",
        "JobCompType": "jobcomp/none",
    }


def _machines(settings: Settings) -> list[str]:
    """Nodes and partitions: `main` has no time limit, `short` ends jobs after 10 minutes."""

    def gres(node: str) -> str:
        gpus = settings.gpus or int(node in settings.gpu_of)
        return f" Gres=gpu:{gpus}" if gpus else ""

    nodes = [
        f"NodeName={node} NodeHostname={node} NodeAddr={settings.address(node)} CPUs={settings.cpus} "
        f"RealMemory={settings.memory_mib}{gres(node)} Feature=small,loopback State=UNKNOWN"
        for node in settings.nodes
    ]
    return [
        *nodes,
        "PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE DefaultTime=10 State=UP",
        "PartitionName=short Nodes=ALL MaxTime=10 DefaultTime=5 State=UP",
    ]


def gres_conf(settings: Settings) -> str:
    """gres.conf: with File=, Slurm numbers the GPUs of each node from 0 and sets CUDA_VISIBLE_DEVICES."""
    if settings.real_gpus:
        return "".join(f"NodeName={node} Name=gpu File=/dev/nvidia{gpu}\n" for node, gpu in settings.gpu_of.items())
    if not settings.gpus:
        return ""
    return f"Name=gpu File={settings.folder}/dev/nvidia[0-{settings.gpus - 1}]\n"


def task_prolog(settings: Settings) -> str:
    """A script that Slurm runs before each task: names a real GPU as this machine counts them, not as its node does.

    Nothing else keeps the nodes' GPUs apart.
    """
    names = "\n".join(f"{node}) gpu={gpu} ;;" for node, gpu in settings.gpu_of.items())
    return f"""#!/bin/bash
case $(hostname) in
{names}
esac
if [[ -n ${{CUDA_VISIBLE_DEVICES:-}} ]]; then echo "export CUDA_VISIBLE_DEVICES=$gpu"; fi
"""


def slurmdbd_conf(settings: Settings) -> str:
    """slurmdbd.conf for the database next door."""
    port = settings.controller_port
    lines = {
        "AuthType": "auth/munge",
        "AuthInfo": f"socket={settings.folder}/munge/socket",
        "DbdHost": "localhost",
        "DbdAddr": "127.0.0.1",
        "DbdPort": port + 2,
        "SlurmUser": "root",
        "PidFile": f"{settings.folder}/run/slurmdbd.pid",
        "LogFile": f"{settings.folder}/log/slurmdbd.log",
        "PluginDir": PLUGINS,
        "StorageType": "accounting_storage/mysql",
        "StorageHost": "127.0.0.1",
        "StoragePort": port + 3,
        "StorageUser": "slurm",
        "StoragePass": "slurm",
        "StorageLoc": "slurm_acct",
    }
    return "\n".join(f"{key}={value}" for key, value in lines.items()) + "\n"


def write_files(settings: Settings) -> None:
    """Everything that the daemons read, and the folders that they write to."""
    folder = Path(settings.folder)
    for name in ("state", "run", "log", "dev", "munge", *(f"spool/{node}" for node in settings.nodes)):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "hosts").write_text(hosts_file(settings))
    # there is no name server: names outside the hosts file are unknown at once, not after 10 s
    (folder / "resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
    (folder / "slurm.conf").write_text(slurm_conf(settings))
    (folder / "gres.conf").write_text(gres_conf(settings))
    if settings.real_gpus:
        _task_prolog(settings).write_text(task_prolog(settings))
        _task_prolog(settings).chmod(0o755)
    (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n")  # read, never used
    database = folder / "slurmdbd.conf"
    database.write_text(slurmdbd_conf(settings))
    database.chmod(0o600)
    if settings.num_people:
        _write_people(folder, settings.people)
    (folder / "settings.json").write_text(settings.to_json())


def _write_people(folder: Path, known: Sequence[Person]) -> None:
    """The machine's users and these, their homes, and what node.sh opens to them."""
    (folder / "passwd").write_text(Path("/etc/passwd").read_text() + "".join(person.passwd for person in known))
    (folder / "group").write_text(Path("/etc/group").read_text() + f"{GROUP}:x:{known[0].gid}:\n")
    (folder / "held").mkdir()
    (folder / "openings").write_text("".join(opening.line for opening in openings(needed())))
    for person in known:
        person.home.mkdir(parents=True, mode=0o755)
        os.chown(person.home, person.uid, person.gid)
