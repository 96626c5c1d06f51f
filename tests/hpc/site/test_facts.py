"""Clusters as Slurm describes them, jobs held against them, and first site files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hpc.sbatch.job import JobSpec
from hpc.sbatch.request_check import check_request
from hpc.site.cluster_facts import (
    ClusterFacts,
    NodeGroup,
    Partition,
    ask_cluster,
    read_config,
    read_gpus,
    read_partitions,
)
from hpc.site.files import load_site
from hpc.site.first import site_text
from hpc.site.schema import CpuNodes, Site
from hpc.slurm.commands import SlurmError
from hpc.slurm.component import Component
from tests.support.sample_jobs import HET, JOB
from tests.support.stand_in_commands import calls, first_on_path

SINFO = """\
gpu|up|2-00:00:00|14|128|1031000|gpu:h100:8(S:0-1)|h100,ib
gpu|up|2-00:00:00|2|64|515000|gpu:a100:4(S:0-1)|a100
cpu*|up|1-00:00:00|40|96|250000|(null)|(null)
long|up|infinite|4|96|250000|(null)|(null)
old|inact|1-00:00:00|1|16|64000|gpu:2|(null)
"""
CONFIG = """\
Configuration data as of 2026-01-02T03:04:05
ClusterName             = alpha
JobRequeue              = 1
MaxArraySize            = 1001
SchedulerType           = sched/backfill
SLURM_VERSION           = 22.05.8
"""
FACTS = ClusterFacts("alpha", "22.05.8", read_partitions(SINFO))
SITE = Site(partition="gpu", cpu_nodes=CpuNodes(partition="cpu"), gpu_type="h100")
FITS = replace(HET, site=SITE)


def test_partitions_are_read() -> None:
    gpu, cpu, long, old = FACTS.partitions
    assert (gpu.name, gpu.default, gpu.up, gpu.max_minutes, gpu.max_gpus) == ("gpu", False, True, 2880, 8)
    assert gpu.nodes[0] == NodeGroup(14, 128, 1031000, 8, frozenset({"h100"}), frozenset({"h100", "ib"}))
    assert gpu.nodes[1].gpus == 4
    assert (cpu.name, cpu.default, cpu.max_gpus) == ("cpu", True, 0)
    assert (long.max_minutes, old.up) == (None, False)
    assert FACTS.default_partition is cpu


@pytest.mark.parametrize(
    ("gres", "gpus"),
    [
        ("(null)", (0, frozenset())),
        ("gpu:4", (4, frozenset())),
        ("gpu:h100:8(S:0-1),nvme:1", (8, frozenset({"h100"}))),
        ("gpu:a100:2,gpu:v100:4", (6, frozenset({"a100", "v100"}))),
        ("fpga:1", (0, frozenset())),
    ],
)
def test_gpus_are_read(gres: str, gpus: tuple[int, frozenset[str]]) -> None:
    assert read_gpus(gres) == gpus


def test_lines_that_are_no_partitions_are_passed_over() -> None:
    assert read_partitions("sinfo: hello\n\n") == ()
    assert read_config("no pair\nA = b = c\n") == {"A": "b = c"}


def test_a_cluster_is_asked_with_one_call_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first_on_path(tmp_path, monkeypatch, sinfo=f"cat <<'E'\n{SINFO}E", scontrol=f"cat <<'E'\n{CONFIG}E", sacct="")
    assert ask_cluster() == FACTS
    assert [line.split()[0] for line in calls(tmp_path)] == ["sinfo", "scontrol", "sacct"]


def test_what_a_poorer_cluster_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = CONFIG.replace("backfill", "builtin").replace("JobRequeue              = 1", "JobRequeue = 0")
    first_on_path(
        tmp_path,
        monkeypatch,
        sinfo=f"echo '{SINFO}'",
        scontrol=f"cat <<'E'\n{config}E",
        sacct="echo disabled >&2; exit 1",
    )
    facts = ask_cluster()
    assert (facts.heterogeneous, facts.requeue_default, facts.accounting) == (False, False, False)


def test_a_machine_without_slurm_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SlurmError, match="no such command"):
        ask_cluster()


def test_a_job_that_fits_has_no_mistakes() -> None:
    assert check_request(FITS, FACTS) == []
    assert check_request(replace(JOB, site=Site(partition="gpu", account="p")), FACTS) == []


def one(site: dict[str, Any] | None = None, **component: Any) -> JobSpec:
    """A job of one component on the GPU partition."""
    part = Component(**{"name": "trainers", "gpus_per_node": 8, **component})
    return replace(JOB, components=(part,), site=SITE.model_copy(update=site or {}))


MISTAKES: dict[str, tuple[JobSpec, ClusterFacts, str]] = {
    "unknown partition": (
        one({"partition": "gpus"}),
        FACTS,
        "trainers: found the partition gpus; wanted one of gpu, cpu, long, old: did you mean gpu?",
    ),
    "unknown partition like no other": (
        one({"partition": "xyz"}),
        FACTS,
        "trainers: found the partition xyz; wanted one of gpu, cpu, long, old: "
        "correct it in the site file, or in the run file's slurm",
    ),
    "no default partition": (
        one({"partition": None}),
        ClusterFacts("b", "22", (FACTS.partitions[0],)),
        "trainers: found no partition; wanted one, for the cluster has no default: "
        "set partition in the site file to one of gpu",
    ),
    "default partition without GPUs": (
        one({"partition": None}),
        FACTS,
        "trainers: found 8 GPUs per node; wanted none, as partition cpu has none: "
        "set placement.device to cpu, or choose another partition",
    ),
    "too many GPUs": (
        one(gpus_per_node=16),
        FACTS,
        "trainers: found 16 GPUs per node; wanted at most 8, the most of partition gpu: "
        "choose another partition, or fewer GPUs per node and more nodes",
    ),
    "unknown type of GPU": (
        one({"gpu_type": "b200"}),
        FACTS,
        "trainers: found gpu_type b200; wanted one of a100, h100: correct it in the site file",
    ),
    "too many nodes": (
        one(nodes=15),
        FACTS,
        "trainers: found 15 nodes with 8 GPUs and 1 CPU; wanted at most 14, all such nodes of partition gpu: "
        "ask for fewer or smaller nodes, or choose another partition",
    ),
    "too many CPUs": (
        one(cpus_per_task=200),
        FACTS,
        "trainers: found 1 node with 8 GPUs and 200 CPUs; wanted at most 0, all such nodes of partition gpu: "
        "ask for fewer or smaller nodes, or choose another partition",
    ),
    "too much memory": (
        one(mem="2T"),
        FACTS,
        "trainers: found 1 node with 8 GPUs and 1 CPU and 2T of memory; wanted at most 0, all such nodes of "
        "partition gpu: ask for fewer or smaller nodes, or choose another partition",
    ),
    "unknown feature": (
        one(constraint="h100&ibb"),
        FACTS,
        "trainers: found the feature ibb; wanted one of a100, h100, ib: did you mean ib?",
    ),
    "unknown feature among alternatives, of the site": (
        one({"constraint": "[rack1*2|h100*2]"}),
        FACTS,
        "trainers: found the feature rack1; wanted one of a100, h100, ib: "
        "correct constraint in the site file, or in the run file's slurm, or leave it out",
    ),
    "feature where no node has any": (
        one({"partition": "cpu", "gpu_type": None}, gpus_per_node=0, constraint="ib"),
        replace(FACTS, partitions=FACTS.partitions[1:]),
        "trainers: found the feature ib; wanted no constraint, as no node of this cluster has a feature: "
        "correct constraint in the site file, or in the run file's slurm, or leave it out",
    ),
    "too many nodes of a feature": (
        one({"gpu_type": None}, nodes=3, gpus_per_node=4, constraint="a100"),
        FACTS,
        "trainers: found 3 nodes with 4 GPUs and 1 CPU and feature a100; wanted at most 2, all such nodes of "
        "partition gpu: ask for fewer or smaller nodes, or choose another partition",
    ),
    "features that no node has together": (
        one({"gpu_type": None}, gpus_per_node=4, constraint="a100&ib"),
        FACTS,
        "trainers: found 1 node with 4 GPUs and 1 CPU and feature a100 and feature ib; wanted at most 0, all such "
        "nodes of partition gpu: ask for fewer or smaller nodes, or choose another partition",
    ),
    "time over the limit": (
        replace(one(), time_minutes=3000),
        FACTS,
        "trainers: found a time limit of 2-02:00:00; wanted at most 2-00:00:00, the limit of partition gpu: "
        "lower slurm.time, for a run goes on in the next job, or choose another partition",
    ),
    "partition down": (
        one({"partition": "old", "gpu_type": None}, gpus_per_node=2),
        FACTS,
        "trainers: found the partition old, which is down; wanted one that is up: choose another, or wait",
    ),
    "no heterogeneous jobs": (
        FITS,
        replace(FACTS, heterogeneous=False),
        "found a job of several components; wanted an ordinary one, for this cluster's scheduler starts no "
        "heterogeneous jobs: set heterogeneous: false in the site file",
    ),
    "no sacct": (
        replace(FITS, site=Site(**{**SITE.model_dump(exclude_unset=True), "accounting": True})),
        replace(FACTS, accounting=False),
        "found accounting: true; wanted false, for sacct does not work here: correct the site file",
    ),
    "array too long": (
        replace(one(), array_run_dirs=tuple(Path(f"/runs/{number}") for number in range(1001))),
        FACTS,
        "found 1001 runs; wanted at most 1000, the cluster's limit: split the sweep",
    ),
    "unmergeable": (
        replace(
            FITS,
            heterogeneous=False,
            components=(Component("a", options={"tmp": "1"}), Component("b", options={"tmp": "2"})),
        ),
        FACTS,
        "found components that differ in the option tmp (1, 2); wanted one value: without heterogeneous jobs they "
        "share an allocation: make it the same for all",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_what_the_cluster_cannot_give_is_said(name: str) -> None:
    job, facts, says = MISTAKES[name]
    assert list(map(str, check_request(job, facts))) == [says]


@pytest.mark.parametrize("constraint", ["h100", "h100&ib", "h100|a100", "[h100*1&a100*1]", "(h100&ib)|a100", "!v100"])
def test_features_that_nodes_have(constraint: str) -> None:
    assert check_request(one(constraint=constraint), FACTS) == []


def test_features_are_those_of_all_partitions() -> None:
    assert FACTS.features == {"a100", "h100", "ib"}
    ib_on_cpu_nodes = one({"partition": "cpu", "gpu_type": None}, gpus_per_node=0, constraint="ib")
    (mistake,) = check_request(ib_on_cpu_nodes, FACTS)
    assert mistake.found == "1 node with 1 CPU and feature ib"


def test_all_mistakes_are_said_at_once() -> None:
    job = replace(FITS, site=SITE.model_copy(update={"partition": "gpux", "cpu_nodes": CpuNodes(partition="cpux")}))
    assert len(check_request(job, replace(FACTS, heterogeneous=False))) == 3


def test_of_several_partitions_one_that_fits_is_enough() -> None:
    assert check_request(one({"partition": "cpu,gpu"}), FACTS) == []
    assert len(check_request(one({"partition": "cpu,long"}), FACTS)) == 1


def test_no_sacct_is_no_mistake_where_the_site_file_claims_nothing() -> None:
    assert check_request(replace(FITS, site=SITE), replace(FACTS, accounting=False)) == []


def test_the_first_site_file_says_what_was_found(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_text(site_text(FACTS, {"ib0": "10.1.0.1", "eth0": "10.2.0.1"}, ["apptainer"]))
    site = load_site(path)
    assert site == Site(
        partition="gpu",
        cpu_nodes=CpuNodes(partition="cpu"),
        time="2-00:00:00",
        max_time="2-00:00:00",
        gpus_per_node=8,
        gpu_option="gres",
        heterogeneous=True,
        requeue=True,
        accounting=True,
        port_range="20000-29999",
    )
    assert "# gpu_type:    # one of a100, h100; left out: any" in path.read_text()
    assert "ib0 10.1.0.1, eth0 10.2.0.1" in path.read_text()
    assert check_request(replace(FITS, site=site), FACTS) == []


def test_the_first_site_file_of_a_poor_cluster(tmp_path: Path) -> None:
    poor = Partition("main", (NodeGroup(2, 8, 16000),), default=True)
    facts = ClusterFacts("b", "23.11", (poor,), heterogeneous=False, requeue_default=False, accounting=False)
    (tmp_path / "site.yaml").write_text(site_text(facts))
    site = load_site(tmp_path / "site.yaml")
    assert (site.partition, site.gpus_per_node, site.time) == ("main", None, None)
    assert (site.heterogeneous, site.requeue, site.accounting) == (False, False, False)


def test_the_first_site_file_of_a_cluster_without_partitions(tmp_path: Path) -> None:
    (tmp_path / "site.yaml").write_text(site_text(ClusterFacts("", "", ())))
    assert load_site(tmp_path / "site.yaml").partition is None
