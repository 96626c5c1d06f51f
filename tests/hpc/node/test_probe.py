"""The probe of the login node: real interfaces, stand-in container programs, the kernel's own ports."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from hpc.node.probe import container_runtimes, ephemeral_overlap, network_interfaces


def test_interfaces_have_addresses_that_can_be_bound() -> None:
    for name, address in network_interfaces().items():
        assert name != "lo"
        with socket.socket() as server:
            server.bind((address, 0))


@pytest.mark.parametrize(
    ("programs", "found"),
    [
        ({}, []),
        ({"apptainer": ""}, ["apptainer"]),
        ({"srun": "echo usage"}, []),
        ({"srun": "echo '      --container-image=[USER@]IMAGE'", "singularity": ""}, ["pyxis", "singularity"]),
    ],
)
def test_container_runtimes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, programs: dict[str, str], found: list[str]
) -> None:
    for name, line in programs.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{line}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert container_runtimes() == found


@pytest.mark.parametrize(
    ("kernel", "ports", "overlap"),
    [
        ("32768\t60999\n", range(20000, 30000), range(0)),
        ("32768\t60999\n", range(30000, 40001), range(32768, 40001)),
        ("9000 65500", range(20000, 30000), range(20000, 30000)),
        ("nonsense", range(20000, 30000), range(0)),
    ],
)
def test_ports_that_the_kernel_also_takes(tmp_path: Path, kernel: str, ports: range, overlap: range) -> None:
    (tmp_path / "range").write_text(kernel)
    assert len(ephemeral_overlap(ports, tmp_path / "range")) == len(overlap)
    assert list(ephemeral_overlap(ports, tmp_path / "range"))[:1] == list(overlap)[:1]
    assert len(ephemeral_overlap(ports, tmp_path / "gone")) == 0
