"""Components, jobs, time limits and reserved variables: what they refuse, and what follows from them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from common.slurm_time import format_time, time_limit_minutes
from hpc.slurm.component import Component
from hpc.slurm.reserved import reserved_variable
from tests.support.sample_jobs import HET, JOB


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "two words"}, "component name"),
        ({"nodes": 0}, "nodes 0 of a"),
        ({"tasks_per_node": 0}, "tasks_per_node 0"),
        ({"cpus_per_task": 0}, "cpus_per_task 0"),
        ({"gpus_per_node": -1}, "gpus_per_node -1"),
        ({"mem": "64 GB"}, "mem '64 GB'"),
        ({"options": {"output": "/tmp/log"}}, "does not set: leave it out: each process has a log"),
        ({"options": {"gres": "gpu:1"}}, "set `gpus_per_node=` of the Component"),
        ({"options": {"partition": "gpu"}}, "set `partition=` of the Component"),
        ({"options": {"--tmp": "1"}}, "without its dashes in front: write for example tmp"),
        ({"options": {"tmp": ""}}, "found --tmp without a value"),
        ({"options": {"hold": "1"}}, "the value '1' of --hold; wanted no value"),
    ],
)
def test_a_component_that_no_job_could_have_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Component(**{"name": "a", **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "my run"}, "job name"),
        ({"components": ()}, "without components"),
        ({"command": ()}, "empty command"),
        ({"signal": "KILL"}, "signal 'KILL'"),
        ({"signal_lead_s": 5400}, "5400 s ahead of a limit of 5400 s"),
        ({"signal_lead_s": 0}, "signal 0 s"),
        ({"run_dir": Path("runs")}, "absolute path"),
        ({"environment": {"RANK": "0"}}, "torchrun sets it"),
        ({"environment": {"EBBTIDE_API_KEY": "x"}}, "secrets"),
    ],
)
def test_parts_that_do_not_make_a_job_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(JOB, **changes)


def test_a_heterogeneous_array_is_refused_and_one_allocation_taken() -> None:
    with pytest.raises(ValueError, match="heterogeneous job array"):
        replace(HET, array="0-3")
    assert replace(HET, array="0-3", heterogeneous=False).num_het_components == 1


def test_tasks_and_excluded_nodes() -> None:
    assert HET.num_tasks == 3
    assert replace(HET, exclude=("n9", "n7")).excluded_nodes == ("n7", "rack3-[01-04]", "n9")


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("90", 90),
        ("90:30", 91),
        ("01:30:00", 90),
        ("00:00:01", 1),
        ("2-0", 2880),
        ("1-2:3", 1563),
        ("1-00:00:00", 1440),
    ],
)
def test_time_limits(text: str, minutes: int) -> None:
    assert time_limit_minutes(text) == minutes
    assert time_limit_minutes(format_time(minutes)) == minutes


@pytest.mark.parametrize("text", ["", "0", "00:00", "1h", "-5", "1-", "1:2:3:4", "infinite"])
def test_what_is_no_time_limit(text: str) -> None:
    with pytest.raises(ValueError, match="wanted"):
        time_limit_minutes(text)


@pytest.mark.parametrize(
    "name", ["EBBTIDE_X", "SLURM_JOB_ID", "RANK", "MASTER_ADDR", "PYTHONPATH", "GLOO_SOCKET_IFNAME"]
)
def test_the_launchers_variables_are_reserved(name: str) -> None:
    assert reserved_variable(name)


@pytest.mark.parametrize("name", ["HF_TOKEN", "WANDB_API_KEY", "OPENAI_APIKEY", "my_password", "AWS_SECRET_ACCESS_KEY"])
def test_secrets_are_reserved(name: str) -> None:
    assert "secrets" in (reserved_variable(name) or "")


@pytest.mark.parametrize(
    "name", ["NCCL_DEBUG", "OMP_NUM_THREADS", "TOKENIZERS_PARALLELISM", "HF_HOME", "MONKEY", "LD_LIBRARY_PATH"]
)
def test_other_variables_are_the_users(name: str) -> None:
    assert reserved_variable(name) is None
