"""What a real cluster says about itself, and whether it agrees about the jobs that it cannot run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hpc.sbatch.job import JobSpec
from hpc.sbatch.request_check import check_request
from hpc.sbatch.text import sbatch_text
from hpc.site.cluster_facts import ask_cluster
from hpc.site.files import load_site
from hpc.site.first import site_text
from hpc.site.schema import Site
from hpc.slurm.component import Component
from tests.slurm_cluster import Cluster
from tests.slurm_cluster.cluster import ClusterError

pytestmark = pytest.mark.slurm


def job(tmp_path: Path, **component: object) -> JobSpec:
    part = Component(**{"name": "trainers", **component})  # type: ignore[arg-type]
    return JobSpec("facts", (part,), 8, ("true",), Site(), tmp_path)


def sbatch_takes(cluster: Cluster, wanted: JobSpec) -> bool:
    script = wanted.run_dir / "job.sbatch"
    script.write_text(sbatch_text(wanted))
    try:
        cluster.run("sbatch", "--test-only", str(script))
    except ClusterError:
        return False
    return True


def test_the_facts_of_a_cluster(cluster: Cluster, tmp_path: Path) -> None:
    facts = ask_cluster()
    assert [partition.name for partition in facts.partitions] == ["main", "short"]
    assert facts.default_partition is not None
    assert facts.default_partition.name == "main"
    (group,) = facts.partitions[0].nodes
    assert (group.count, group.cpus, group.gpus) == (4, 8, 2)
    assert facts.features == group.features == {"small", "loopback"}
    assert [partition.max_minutes for partition in facts.partitions] == [None, 10]
    assert (facts.heterogeneous, facts.requeue_default, facts.accounting) == (True, True, True)
    assert facts.version.startswith(("2", "3"))
    assert facts.max_array_size == 1001
    (tmp_path / "site.yaml").write_text(site_text(facts))
    assert load_site(tmp_path / "site.yaml").gpus_per_node == 2


def test_a_cluster_without_sacct_says_so(cluster_without_sacct: Cluster) -> None:
    assert not ask_cluster().accounting


WISHES = {
    "fits": {"nodes": 4, "gpus_per_node": 2, "cpus_per_task": 8},
    "short": {"partition": "short"},
    "feature": {"constraint": "small"},
    "features": {"constraint": "small&loopback", "nodes": 4},
    "features among alternatives": {"constraint": "small|loopback"},
    "counted features": {"constraint": "[small*1&loopback*1]", "nodes": 2},
    "unknown feature": {"constraint": "smal"},
    "unknown feature beside a known one": {"constraint": "small&big"},
    "unknown feature among alternatives": {"constraint": "small|big"},
    "unknown partition": {"partition": "gpu"},
    "too many GPUs": {"gpus_per_node": 3},
    "too many nodes": {"nodes": 5},
    "too many CPUs": {"cpus_per_task": 9},
    "too much memory": {"mem": "1T"},
}

FIT = ("fits", "short", "feature", "features", "features among alternatives", "counted features")


@pytest.mark.parametrize("name", WISHES)
def test_slurm_agrees_about_what_it_can_run(cluster: Cluster, tmp_path: Path, name: str) -> None:
    wanted = job(tmp_path, **WISHES[name])
    fits = not check_request(wanted, ask_cluster())
    assert fits == (name in FIT)
    assert sbatch_takes(cluster, wanted) == fits


def test_a_time_over_the_limit_is_said_although_sbatch_would_queue_it_for_ever(
    cluster: Cluster, tmp_path: Path
) -> None:
    wanted = replace(job(tmp_path, partition="short"), time_minutes=11)
    (mistake,) = check_request(wanted, ask_cluster())
    assert "found a time limit of 00:11:00; wanted at most 00:10:00" in str(mistake)
