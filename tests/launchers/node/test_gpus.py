"""Which GPUs an engine is given, by UUID, however they are numbered."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.config import load_run_file
from core.config.layout import engine_gpus, nodes
from core.config.schema import RunConfig
from core.engines.pairing import WrongGpu, check_gpus, serving_ranks
from core.processes.rendezvous import Member
from hpc.node.gpus import NoSuchGpu, VisibleGpu, choose_gpus
from launchers.node.gpus import choose, naming
from tests.support.tiny_runs import write_run

LISTING = """\
GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-aaaa1111-0000-0000-0000-000000000000)
GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-bbbb2222-0000-0000-0000-000000000000)
  MIG 1g.10gb     Device  0: (UUID: MIG-dddd4444-0000-0000-0000-000000000000)
  MIG 1g.10gb     Device  1: (UUID: MIG-eeee5555-0000-0000-0000-000000000000)
GPU 2: NVIDIA H100 80GB HBM3 (UUID: GPU-bbbb3333-0000-0000-0000-000000000000)
"""
REST = "-0000-0000-0000-000000000000"


@pytest.mark.parametrize(
    ("visible", "indices"),
    [
        (None, [0, 1, 2]),
        ("", []),
        ("2,0", [2, 0]),
        ("GPU-bbbb3, GPU-aaaa", [2, 0]),
        ("MIG-eeee5555" + REST, [None]),
    ],
    ids=["all", "none", "reordered", "UUIDs, shortened", "MIG"],
)
def test_visible_gpus_keep_their_order(visible: str | None, indices: list[int | None]) -> None:
    assert [gpu.index for gpu in choose_gpus(LISTING, visible)] == indices


@pytest.mark.parametrize("visible", ["3", "0,GPU-cccc", "GPU-bbbb"], ids=["index", "unknown", "not unique"])
def test_a_gpu_that_is_not_there_is_named(visible: str) -> None:
    with pytest.raises(NoSuchGpu, match=rf"names '{visible.split(',')[-1]}', .* wanted one of 0 = GPU-aaaa1111"):
        choose_gpus(LISTING, visible)


def test_mig_instances_are_named_by_uuid_and_gpus_by_index() -> None:
    """SGLang reads the names as numbers where an engine has several GPUs; instances have none."""
    gpus = choose_gpus(LISTING, "2,0")
    assert naming(gpus) == {"CUDA_VISIBLE_DEVICES": "2,0", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    instances = choose_gpus(LISTING, f"MIG-eeee5555{REST}")
    assert naming(instances)["CUDA_VISIBLE_DEVICES"] == f"MIG-eeee5555{REST}"


def config_of(tmp_path: Path, **placement: object) -> RunConfig:
    return load_run_file(write_run(tmp_path), [f"placement.{key}={value}" for key, value in placement.items()])


GPUS = [VisibleGpu(f"GPU-{letter}", index) for letter, index in zip("abcd", (3, 1, 0, 2), strict=True)]


def given(config: RunConfig, index: int) -> tuple[tuple[str, ...], str]:
    node = nodes(config)[0]
    gpus = choose(GPUS, engine_gpus(config, node, index), node.number)
    return gpus.uuids, dict(gpus.environment)["CUDA_VISIBLE_DEVICES"]


def test_a_colocated_engine_sees_its_own_gpus_in_the_order_of_its_ranks(tmp_path: Path) -> None:
    config = config_of(tmp_path, trainers_per_node=4, engines_per_node=2, engine_tensor_parallel=2)
    assert given(config, 0) == (("GPU-a", "GPU-b"), "3,1")
    assert given(config, 1) == (("GPU-c", "GPU-d"), "0,2")


def test_an_engine_with_gpus_of_its_own_sees_no_others(tmp_path: Path) -> None:
    config = config_of(tmp_path, trainers_per_node=1, engines="own_gpus", engines_per_node=3)
    assert nodes(config)[0].part.gpus_used == 4
    assert [given(config, index) for index in range(3)] == [(("GPU-b",), "1"), (("GPU-c",), "0"), (("GPU-d",), "2")]


def test_a_node_with_too_few_gpus_is_told(tmp_path: Path) -> None:
    config = config_of(tmp_path, trainers_per_node=3, engines="own_gpus", engine_tensor_parallel=2)
    with pytest.raises(NoSuchGpu, match=r"node 0 has 4 GPUs .*GPU-a, GPU-b.* wants those at places 3 to 4: use fewer"):
        given(config, 0)


def member(role: str, name: str, *devices: str) -> Member:
    return Member(role, name, 0, "n1", 1, devices=devices)


TRAINERS = [member("trainer", "0", "GPU-AAAA"), member("trainer", "1", "GPU-cccc")]  # torch says no kind: GPU- is ours


@pytest.mark.parametrize(
    ("devices", "colocated", "problem"),
    [
        (["GPU-cccc", "GPU-aaaa"], True, None),
        (["MIG-cccc"], True, None),
        ([], True, None),
        (["GPU-aaaa", "GPU-bbbb"], True, r"engine e runs on GPU-bbbb of n1, which no trainer rank .*0: GPU-AAAA, 1: G"),
        (["GPU-bbbb"], False, None),
        (["GPU-bbbb", "GPU-cccc"], False, r"engine e runs on GPU-cccc of n1, where trainer rank 1 is; wanted a GPU of"),
    ],
    ids=["reordered", "MIG", "CPU", "strange GPU", "own GPU", "not its own"],
)
def test_engines_are_paired_by_uuid(devices: list[str], colocated: bool, problem: str | None) -> None:
    engines = [member("engine", "e", *devices)]
    if problem is None:
        check_gpus(engines, TRAINERS, colocated=colocated)
    else:
        with pytest.raises(WrongGpu, match=problem):
            check_gpus(engines, TRAINERS, colocated=colocated)


@pytest.mark.parametrize(
    ("devices", "places", "local_ranks"),
    [
        (["GPU-cccc", "GPU-aaaa"], range(2), (1, 0)),
        (["MIG-CCCC"], range(1), (1,)),
        ([], range(2), (0, 1)),
        ([], range(1, 2), (1,)),
        ([], range(4, 7), (0, 1, 0)),
    ],
    ids=["the order is the engine's", "spelt otherwise", "CPU", "CPU, second engine", "CPU, more engines than ranks"],
)
def test_each_rank_of_an_engine_is_served_by_the_trainer_rank_on_its_gpu(
    devices: list[str], places: range, local_ranks: tuple[int, ...]
) -> None:
    assert serving_ranks(member("engine", "e", *devices), places, TRAINERS) == local_ranks


@pytest.mark.parametrize(
    ("devices", "problem"),
    [(["GPU-aaaa", "GPU-bbbb"], "engine e runs on GPU-bbbb"), (["GPU-aaaa"], "engine e has 1 GPUs, wanted 2")],
    ids=["no trainer there", "too few"],
)
def test_a_rank_of_an_engine_that_nobody_can_serve_is_told(devices: list[str], problem: str) -> None:
    with pytest.raises(WrongGpu, match=problem):
        serving_ranks(member("engine", "e", *devices), range(2), TRAINERS)
