"""A real Slurm cluster for the tests of this folder: one for the whole session, put in order after every test."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.slurm_cluster import Cluster, Settings, why_not
from tests.slurm_cluster.people import hidden
from tests.slurm_cluster.settings import SLURMS_KILL_WAIT_S

REQUIRED = "EBBTIDE_REQUIRE_SLURM"  # 1: a cluster that cannot be started is a failure, not a reason to skip


def start(wanted: Settings) -> Cluster:
    """A cluster that ends with this process; skips the test, or fails it, where there can be none."""
    if (reason := why_not(wanted.accounting)) is not None:
        give_up(f"there is no Slurm cluster: {reason}")
    return Cluster.start(wanted, owner=os.getpid())


def give_up(reason: str) -> None:
    """Skip the test, or fail it where a cluster is required."""
    if os.environ.get(REQUIRED) == "1":
        pytest.fail(f"{REQUIRED}=1, but {reason}", pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def slurm_session() -> Iterator[Cluster]:
    """Four nodes of 8 CPUs and 2 fake GPUs, with accounting. Tests use `cluster`."""
    kill_wait_s = SLURMS_KILL_WAIT_S if os.environ.get("EBBTIDE_TESTS") == "all" else 5  # less is sooner done
    running = start(Settings(folder="", num_nodes=4, gpus=2, kill_wait_s=kill_wait_s))
    yield running
    running.stop()


@pytest.fixture(scope="session")
def bare_session() -> Iterator[Cluster]:
    """Two nodes without accounting: sacct does not work. Tests use `cluster_without_sacct`."""
    running = start(Settings(folder="", num_nodes=2, accounting=False))
    yield running
    running.stop()


@pytest.fixture(scope="session")
def gpu_session() -> Iterator[Cluster]:
    """Two nodes without accounting; the first has this machine's first GPU, the other none. See `cluster_with_gpu`."""
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    running = start(Settings(folder="", num_nodes=2, accounting=False, real_gpus=(0,)))
    yield running
    running.stop()


@pytest.fixture
def cluster(slurm_session: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """The session's cluster, in SLURM_CONF for everything that the test starts; afterwards no job, all nodes up."""
    yield from borrowed(slurm_session, monkeypatch)


@pytest.fixture
def cluster_without_sacct(bare_session: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A small cluster on which sacct fails, in SLURM_CONF."""
    yield from borrowed(bare_session, monkeypatch)


@pytest.fixture
def cluster_with_gpu(gpu_session: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A cluster that hands out a real GPU, in SLURM_CONF."""
    yield from borrowed(gpu_session, monkeypatch)


@pytest.fixture
def cluster_with_people() -> Iterator[Cluster]:
    """Two nodes and two ordinary users, who may read and run this program."""
    if (path := hidden()) is not None:
        give_up(f"other users cannot run this program: {path} is closed to them")
    running = start(Settings(folder="", num_nodes=2, num_people=2))
    yield running
    running.stop()


def borrowed(running: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    monkeypatch.setenv("SLURM_CONF", str(running.conf))
    yield running
    running.reset()
