"""bench/two_nodes.py: what it reads out of logs, and what it does not let pass."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from bench.layout_runs import NUM_STEPS
from bench.node_runs import CASES, links, sent_bytes
from bench.two_nodes import faults, gaps, table, why_not_here
from tests.slurm_cluster.settings import Settings, gres_conf, slurm_conf, task_prolog

NCCL_LOG = """\
n1:71:71 [0] NCCL INFO NET/Socket : Using [0]eth0:10.77.1.1<0>
n1:71:90 [0] NCCL INFO ncclCommInitRankConfig comm 0x1 rank 0 nranks 2 cudaDev 0 nvmlDev 0 busId 9d000 - Init START
n1:71:90 [0] NCCL INFO Channel 00/0 : 1[0] -> 0[0] [receive] via NET/Socket/0
n1:71:90 [0] NCCL INFO Channel 01/0 : 0[0] -> 1[0] [send] via NET/Socket/0
"""
OTHER_LOG = "n2:66:80 [0] NCCL INFO ncclCommInitRank comm 0x1 rank 1 nranks 2 cudaDev 0 nvmlDev 1 busId a1000 - Init\n"
SHARED_MEMORY = "n1:71:90 [0] NCCL INFO Channel 00 : 0[0] -> 1[1] via SHM/direct/direct\n"
DEVICES = """\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier
    lo:     100       1    0    0    0     0          0         0      200       1    0    0    0     0       0
  eth0:     300       3    0    0    0     0          0         0     4096       4    0    0    0     0       0
"""
NODES, SPARE = ["n1", "n2"], ["n1", "n3"]
KILLED = [["node_failure", NODES, ["n2"]], ["complete", SPARE, []]]
GOOD: dict[str, Any] = {
    "case": "dp2",
    "rc": 0,
    "start_s": 60.0,
    "whole_s": 80.0,
    "attempts": [["complete", NODES, []]],
    "warnings": [],
    "losses": [0.0] * NUM_STEPS,
    "logprob_gap": [0.02],
    "sync_s": [0.1],
    "sent_mib": 4.0,
    "loss_gap": 0.001,
    "exact_loss_gap": 1e-6,
    "exact_logprob_gap": 2e-6,
    **links([NCCL_LOG, OTHER_LOG]),
}


def test_log_of_nccl_tells_links_and_gpus() -> None:
    assert links([NCCL_LOG, OTHER_LOG]) == {"via": {"NET/Socket": 2}, "gpus": ["9d000", "a1000"]}
    assert links([SHARED_MEMORY])["via"] == {"SHM/direct": 1}
    assert links([]) == {"via": {}, "gpus": []}


def test_bytes_on_the_network() -> None:
    assert sent_bytes(DEVICES) == 4096


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({}, 0),
        ({"rc": None, "losses": []}, 1),
        ({"attempts": [["failed", NODES, []]]}, 1),
        ({"attempts": [["complete", ["n1"], []]]}, 1),
        ({"logprob_gap": [0.02, 0.3]}, 1),
        ({"loss_gap": 0.1}, 1),
        ({"loss_gap": None}, 1),
        ({"exact_loss_gap": 2e-5, "exact_logprob_gap": 2e-4}, 2),
        ({"via": {"NET/Socket": 2, "SHM/direct": 1}}, 1),
        ({"via": {}, "gpus": []}, 2),
        ({"gpus": ["9d000"]}, 1),
        ({"case": "killed-update", "attempts": KILLED}, 0),
        ({"case": "killed-update"}, 1),
        ({"case": "killed-update", "attempts": [KILLED[0], ["complete", NODES, []]]}, 1),
        ({"case": "killed-update", "attempts": [["node_failure", NODES, ["n1"]], ["complete", ["n2", "n3"], []]]}, 1),
    ],
    ids=[
        "good",
        "no end",
        "failed",
        "one node",
        "engine apart",
        "loss apart",
        "no loss",
        "exact apart",
        "shared memory",
        "no links",
        "one GPU",
        "went on without the node",
        "not killed",
        "same nodes again",
        "another node blamed",
    ],
)
def test_what_is_not_as_wanted_is_told(change: dict[str, Any], wrong: int) -> None:
    assert len(faults({**GOOD, **change}, "cuda")) == wrong


def test_without_a_gpu_there_are_no_links() -> None:
    assert faults({**GOOD, "logprob_gap": [0.0], "loss_gap": 0.0, "via": {}, "gpus": []}, "cpu") == []


def test_gaps_are_the_largest_of_the_steps() -> None:
    def steps(*losses: float) -> list[dict[str, Any]]:
        return [{"metrics": {"train/loss": loss, "train/grad_norm": 1.0}, "logprobs": [loss]} for loss in losses]

    again = {"alone": steps(0.0, 0.5), "exact": steps(0.0, 1.0), "over_nodes": steps(0.25, 1.0)}
    found = gaps({"losses": [0.0, 0.25]}, again)
    assert found == {"loss_gap": 0.25, "exact_loss_gap": 0.25, "exact_logprob_gap": 0.25}
    assert gaps({"losses": []}, {"alone": None}) == {}


def test_every_case_has_its_line_even_if_it_came_to_nothing() -> None:
    lines = table([{**GOOD, "faults": []}, {"case": "engines", "faults": ["TimeoutError: no cluster"]}]).splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["dp2", "engines"]
    assert lines[1].endswith("complete on n1+n2: ok")
    assert "no cluster" in lines[2]


def test_without_two_gpus_it_says_so() -> None:
    if Path("/dev/nvidia1").exists():
        pytest.skip("there are two")
    assert "wanted two GPUs" in str(why_not_here("cuda"))


def test_a_spare_node_where_one_dies() -> None:
    assert {name: case.num_nodes for name, case in CASES.items() if case.num_nodes != 2} == {
        "killed-update": 3,
        "killed-rollout": 3,
    }


def test_each_node_has_its_gpu_by_this_machines_number() -> None:
    wanted = Settings(folder="/c", num_nodes=4, real_gpus=(0, 1, 1))
    again = Settings.from_json(wanted.to_json())
    assert again == wanted
    assert gres_conf(wanted).splitlines()[2] == "NodeName=n3 Name=gpu File=/dev/nvidia1"
    nodes = [line for line in slurm_conf(wanted).splitlines() if line.startswith("NodeName=")]
    assert ["Gres=gpu:1" in line for line in nodes] == [True, True, True, False]
    assert said_by_prolog(wanted, "n3", "0") == "export CUDA_VISIBLE_DEVICES=1\n"
    assert said_by_prolog(wanted, "n1", "0") == "export CUDA_VISIBLE_DEVICES=0\n"
    assert said_by_prolog(wanted, "n2", "") == said_by_prolog(wanted, "n4", "") == "", "a task without a GPU"


def said_by_prolog(settings: Settings, node: str, visible: str) -> str:
    script = f"hostname() {{ echo {node}; }}\n{task_prolog(settings)}"
    done = subprocess.run(
        ["bash", "-c", script], env={"CUDA_VISIBLE_DEVICES": visible}, capture_output=True, text=True, check=True
    )
    return done.stdout
