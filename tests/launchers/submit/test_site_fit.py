from __future__ import annotations

from typing import Any

import pytest

from hpc.site.cluster_facts import ClusterFacts, NodeGroup, Partition
from hpc.site.files import Site
from launchers.submit.site_fit import site_mistakes, site_notices

GPU_NODES = NodeGroup(8, 64, 512_000, 4, frozenset({"h100"}))
FACTS = ClusterFacts(
    "test",
    "slurm 22.05",
    (
        Partition("gpu", (GPU_NODES,), max_minutes=1440),
        Partition("cpu", (NodeGroup(100, 64, 256_000),), default=True),
    ),
)
POOR = ClusterFacts(
    "poor", "slurm 22.05", FACTS.partitions, heterogeneous=False, accounting=False, requeue_default=False
)
SHARED: dict[str, Any] = {"shared_filesystems": ("/lustre",)}


@pytest.mark.parametrize(
    "site",
    [{}, {"partition": "gpu", "gpus_per_node": 4, "gpu_type": "h100", "time": "24:00:00"}, {"max_time": "00:10:00"}],
)
def test_a_site_that_fits(site: dict[str, Any]) -> None:
    assert site_mistakes(Site(**site), FACTS) == []


@pytest.mark.parametrize(
    ("site", "message"),
    [
        ({"partition": "gpus"}, "did you mean gpu?"),
        ({"partition": "gpu", "gpus_per_node": 8}, "found 8 GPUs per node; wanted at most 4"),
        ({"gpus_per_node": 1}, "wanted none, as partition cpu has none: set placement.device to cpu"),
        ({"partition": "gpu", "gpus_per_node": 4, "gpu_type": "a100"}, "found gpu_type a100; wanted one of h100"),
        ({"partition": "gpu", "time": "2-00"}, "found a time limit of 2-00:00:00; wanted at most 1-00:00:00"),
        ({"partition": "gpu", "cpu_nodes": {"partition": "cqu"}}, "did you mean cpu?"),
    ],
)
def test_a_site_that_does_not_fit(site: dict[str, Any], message: str) -> None:
    (mistake,) = site_mistakes(Site(**site), FACTS)
    assert message in str(mistake)


def test_an_accounting_that_is_not_there_is_only_a_notice_until_the_site_file_claims_it() -> None:
    assert site_mistakes(Site(heterogeneous=False), POOR) == []
    assert "found accounting: true; wanted false" in str(site_mistakes(Site(accounting=True), POOR)[0])


@pytest.mark.parametrize(
    ("site", "facts", "overlap", "words"),
    [
        ({}, FACTS, range(0), []),
        ({"interface": "ib0"}, FACTS, range(0), ["interface: ib0 is not on this machine"]),
        ({"interface": "lo"}, FACTS, range(0), ["interface: lo reaches one machine only"]),
        ({}, FACTS, range(29000, 30000), ["the kernel also takes 29000-29999"]),
        ({}, POOR, range(0), ["JobRequeue=0", "sacct does not work", "heterogeneous jobs do not start"]),
        ({"requeue": False, "heterogeneous": False}, POOR, range(0), ["sacct does not work"]),
    ],
)
def test_notices(site: dict[str, Any], facts: ClusterFacts, overlap: range, words: list[str]) -> None:
    notices = site_notices(Site(**{**SHARED, **site}), facts, ["eth0"], overlap)
    assert len(notices) == len(words)
    assert all(word in notice for word, notice in zip(words, notices, strict=True))


def test_shared_folders_are_asked_for() -> None:
    assert "shared_filesystems: none named" in site_notices(Site(), FACTS, [], range(0))[0]
