"""The node probe, with a stand-in nvidia-smi and directories that are missing or hang; and what is complained of."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from hpc.node import health
from hpc.node.complaints import complaints
from hpc.node.gpus import Gpu, ask_gpus
from hpc.node.health import NodeReport, Wanted, probe_node, write_canary
from tests.support.waiting import DEADLINE_S

IDLE = tuple(Gpu(f"GPU-{number}", 81000, 81559) for number in range(2))
FIT = NodeReport("n1", 1000.0, IDLE, free_mib={"/scratch": 5000}, canary="abc")
OR_WITHOUT = ", or leave the node out (slurm.exclude)"
WRITABLE = "wanted a directory to write to: have it mounted there, name another directory" + OR_WITHOUT
SHARED = (
    "; wanted a file system that all nodes share: choose a run directory on one (shared_filesystems in the site file)"
)

WANTED = Wanted(gpus=2, free_mib={"/scratch": 1000}, canary="abc")


def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text(f"#!/bin/bash\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")


def test_a_node_that_is_as_wanted_has_no_complaints() -> None:
    assert complaints(FIT, WANTED, 1010.0) == []
    assert complaints(NodeReport("n1", 1000.0), Wanted(), 1000.0) == []


@pytest.mark.parametrize(
    ("report", "says"),
    [
        (
            replace(FIT, gpus=IDLE[:1]),
            "found 1 of the 2 GPUs; wanted all of them: tell the admins that some are gone" + OR_WITHOUT,
        ),
        (
            replace(FIT, gpus=(), gpu_problem="no nvidia-smi"),
            "found no nvidia-smi; wanted 2 GPUs: see what nvidia-smi says there" + OR_WITHOUT,
        ),
        (
            replace(FIT, gpus=(IDLE[0], Gpu("GPU-x", 60000, 81559))),
            "GPU 1 (GPU-x): found 21559 of 81559 MiB in use before the run; wanted at most 1024: "
            "end what nvidia-smi shows there" + OR_WITHOUT,
        ),
        (
            replace(FIT, gpus=(IDLE[0], Gpu("GPU-x", 15000, 15360, 7.5))),
            "GPU 1 (GPU-x): found compute capability 7.5; wanted 8.0 or newer: "
            "ask for other GPUs (gpu_type in the site file)",
        ),
        (
            replace(FIT, free_mib={"/scratch": 10}),
            "/scratch: found 10 MiB free; wanted at least 1000: remove what is no longer needed there" + OR_WITHOUT,
        ),
        (
            replace(FIT, free_mib={"/scratch": None}, problems={"/scratch": "Read-only file system"}),
            "/scratch: found Read-only file system; " + WRITABLE,
        ),
        (
            replace(FIT, canary=""),
            "found nothing of the file that the leader wrote" + SHARED,
        ),
        (
            replace(FIT, canary="old"),
            "found another text in the file that the leader wrote" + SHARED,
        ),
        (
            replace(FIT, clock_s=1100.0),
            "found a clock 100 s ahead of the leader's; wanted at most 30 s: have its clock set (NTP)" + OR_WITHOUT,
        ),
        (
            replace(FIT, clock_s=900.0),
            "found a clock 100 s behind the leader's; wanted at most 30 s: have its clock set (NTP)" + OR_WITHOUT,
        ),
    ],
)
def test_each_fault_is_complained_of(report: NodeReport, says: str) -> None:
    assert list(map(str, complaints(report, WANTED, 1000.0))) == [says]


def test_a_report_travels_as_json() -> None:
    report = replace(FIT, problems={"/x": "é"})
    assert NodeReport.from_json(report.to_json()) == report


def test_the_probe_of_this_machine(tmp_path: Path) -> None:
    canary = write_canary(tmp_path / "slurm" / "canary")
    wanted = Wanted(free_mib={str(tmp_path): 1, "/dev/shm": 1, str(tmp_path / "gone"): 1}, canary=canary)
    report = probe_node(wanted, tmp_path / "slurm" / "canary", timeout_s=DEADLINE_S)
    assert report.canary == canary
    assert report.free_mib[str(tmp_path)]
    assert list(map(str, complaints(report, wanted, time.time()))) == [
        f"{tmp_path}/gone: found No such file or directory; {WRITABLE}"
    ]


def test_a_canary_that_never_comes(tmp_path: Path) -> None:
    report = probe_node(Wanted(canary="x"), tmp_path / "canary", timeout_s=0.3)
    assert report.canary == ""


def test_a_hung_file_system_does_not_hang_the_probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_room", lambda path: time.sleep(60))
    os.mkfifo(tmp_path / "canary")  # reading it hangs too
    wanted = Wanted(free_mib={"/slow": 1}, canary="x")
    report = probe_node(wanted, tmp_path / "canary", timeout_s=0.3)
    assert list(map(str, complaints(report, wanted, time.time()))) == [
        "/slow: found no answer from its file system; " + WRITABLE,
        "found nothing of the file that the leader wrote" + SHARED,
    ]


def test_gpus_are_those_that_the_job_may_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nvidia_smi(
        tmp_path, monkeypatch, 'echo "GPU-a, 80000, 81559"; [[ "$*" == *--id=1,2* ]] && echo "GPU-b, 1, 2"; true'
    )
    assert ask_gpus(None, 10) == ((Gpu("GPU-a", 80000, 81559),), "")
    assert len(ask_gpus("1,2", 10)[0]) == 2
    assert ask_gpus("", 10) == ((), "")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,2")
    assert len(probe_node(Wanted(gpus=2)).gpus) == 2


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("exec sleep 30", "nvidia-smi without an answer for 1 s"),
        ("echo 'GPU is lost'; exit 15", "nvidia-smi failing (GPU is lost)"),
    ],
)
def test_a_sick_driver_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, says: str) -> None:
    nvidia_smi(tmp_path, monkeypatch, script)
    assert ask_gpus(None, 1.0) == ((), says)


def test_unreadable_lines_are_no_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nvidia_smi(tmp_path, monkeypatch, 'echo "GPU-a, [N/A], 81559, 9.0"; echo "GPU-b, 5, 6, [N/A]"')
    assert ask_gpus(None, 10)[0] == (Gpu("GPU-b", 5, 6),)


def test_the_compute_capability_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nvidia_smi(tmp_path, monkeypatch, 'echo "GPU-a, 80000, 81559, 9.0"; echo "GPU-b, 5, 6, 12.0"')
    assert [gpu.capability for gpu in ask_gpus(None, 10)[0]] == [9.0, 12.0]


def test_no_nvidia_smi(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert ask_gpus(None, 1.0) == ((), "no nvidia-smi")
