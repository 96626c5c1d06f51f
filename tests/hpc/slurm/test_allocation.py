"""Environments as Slurm 22.05 was seen to set them."""

from __future__ import annotations

import pytest

from hpc.slurm.allocation import Allocation, AllocationError

ORDINARY = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[1-3]", "SLURM_TASKS_PER_NODE": "1(x3)"}
STEP = {"SLURM_STEP_ID": "0", "SLURM_PROCID": "2", "SLURM_NTASKS": "3", "SLURM_STEP_NODELIST": "n[1-3]"}
HET = {
    "SLURM_JOB_ID": "7",
    "SLURM_HET_SIZE": "2",
    "SLURM_JOB_ID_HET_GROUP_0": "7",
    "SLURM_JOB_ID_HET_GROUP_1": "8",
    "SLURM_JOB_NODELIST": "n3",  # the batch script's view: component 0 only
    "SLURM_JOB_NODELIST_HET_GROUP_0": "n3",
    "SLURM_JOB_NODELIST_HET_GROUP_1": "n[1-2]",
    "SLURM_NTASKS": "1",
    "SLURM_NTASKS_HET_GROUP_0": "1",
    "SLURM_NTASKS_HET_GROUP_1": "4",
}
HET_STEP = {"SLURM_STEP_ID": "0", "SLURM_NTASKS": "5", "SLURM_STEP_NODELIST": "n[1-3]", "SLURM_JOB_NODELIST": "n[1-3]"}


def allocation(*parts: dict[str, str], **more: str) -> Allocation:
    found = Allocation.from_environ({key: value for part in (*parts, more) for key, value in part.items()})
    assert found is not None
    return found


def test_outside_slurm_there_is_none() -> None:
    assert Allocation.from_environ({"PATH": "/bin"}) is None


def test_shell_of_salloc() -> None:
    found = allocation(ORDINARY)
    assert found.job_id == "7"
    assert found.nodes == ("n1", "n2", "n3")
    assert (found.het_size, found.num_tasks, found.in_step, found.procid) == (1, 3, False, None)


def test_batch_script_is_no_step_although_it_has_a_procid() -> None:
    found = allocation(ORDINARY, SLURM_PROCID="0", SLURM_NODEID="0")
    assert not found.in_step
    assert found.procid is None


def test_interactive_step_of_salloc_is_a_shell() -> None:
    assert not allocation(ORDINARY, SLURM_STEP_ID="4294967290", SLURM_PROCID="0", SLURM_NTASKS="1").in_step


def test_task_of_an_ordinary_job() -> None:
    found = allocation(ORDINARY, STEP, SLURM_RESTART_COUNT="2")
    assert (found.procid, found.restart_count) == (2, 2)


def test_step_on_a_part_of_the_nodes_has_only_those() -> None:
    found = allocation(ORDINARY, STEP, SLURM_STEP_NODELIST="n2", SLURM_NTASKS="1", SLURM_PROCID="0")
    assert found.nodes == ("n2",)
    assert found.num_tasks == 1


@pytest.mark.parametrize("procid", [0, 1, 4])
def test_task_of_a_heterogeneous_job(procid: int) -> None:
    found = allocation(HET, HET_STEP, SLURM_PROCID=str(procid))
    assert (found.procid, found.job_id, found.tasks) == (procid, "7", (1, 4))
    assert found.nodes == ("n3", "n1", "n2")  # components in order, whatever the nodes are called
    assert (found.het_size, found.num_tasks) == (2, 5)


def test_batch_script_of_a_heterogeneous_job_sees_all_components() -> None:
    assert allocation(HET, SLURM_PROCID="0").components == (("n3",), ("n1", "n2"))


def test_step_over_one_component_only_is_refused() -> None:
    with pytest.raises(AllocationError, match=r"step of 1 tasks, wanted all 5 .* srun --het-group=0-1"):
        allocation(HET, HET_STEP, SLURM_NTASKS="1", SLURM_PROCID="0")


@pytest.mark.parametrize(
    ("env", "seconds"),
    [
        ({}, None),
        ({"EBBTIDE_JOB_END": "1000.5"}, 1000.5),
        ({"SLURM_JOB_END_TIME": "2000"}, 2000.0),
        ({"EBBTIDE_JOB_END": "", "SLURM_JOB_END_TIME": "2000"}, 2000.0),
        ({"EBBTIDE_JOB_END": "1000", "SLURM_JOB_END_TIME": "2000"}, 1000.0),
        ({"EBBTIDE_JOB_END": "Unknown"}, None),
    ],
)
def test_job_end(env: dict[str, str], seconds: float | None) -> None:
    assert allocation(ORDINARY, env).job_end == seconds


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({"SLURM_JOB_ID": "7"}, "no SLURM_JOB_NODELIST"),
        ({**ORDINARY, "SLURM_JOB_NODELIST": "n[1"}, "brackets do not match"),
        ({**ORDINARY, "SLURM_RESTART_COUNT": "two"}, "found SLURM_RESTART_COUNT='two', wanted a whole number"),
        ({**ORDINARY, "SLURM_TASKS_PER_NODE": "x"}, "SLURM_TASKS_PER_NODE='x'"),
        ({**HET, "SLURM_HET_SIZE": "3"}, "no SLURM_JOB_NODELIST_HET_GROUP_2"),
    ],
)
def test_contradictions_are_named(env: dict[str, str], message: str) -> None:
    with pytest.raises(AllocationError, match=message.replace("[", r"\[")):
        Allocation.from_environ(env)
