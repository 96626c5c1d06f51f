"""Rows on their way to the device: one by one, in their turn, and without waiting for the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from core.megatron.model import row_params
from core.megatron.rows.packing import Unit, build_row, plan_rows
from core.megatron.rows.to_device import to_device
from core.megatron.rows.tokens import MicroBatches, TokenTable, TokenValues, micro_batch
from core.samples import TrainSample

SAMPLES = [TrainSample(i // 2, [1, 2, 3], [4] * (5 + i), [1] * (5 + i), 1.0, [-1.0] * (5 + i)) for i in range(4)]
BUSY_CYCLES = 2 * 10**9  # of the GPU: about a second


def test_a_row_is_built_when_the_one_before_has_been_taken() -> None:
    happened: list[str] = []

    def build(units: Sequence[Unit]) -> Any:
        happened.append(f"build {units[0].members[0]}")
        return units[0].members[0]

    batches = MicroBatches([[Unit((place,), 1, 1.0)] for place in range(3)], build)
    assert len(batches) == 3
    for place in batches:
        happened.append(f"compute {place}")
    assert happened == ["build 0", "compute 0", "build 1", "compute 1", "build 2", "compute 2"]


def test_on_a_cpu_nothing_is_copied() -> None:
    tensor = torch.arange(3)
    assert to_device(tensor, "cpu") is tensor


@pytest.mark.gpu
@pytest.mark.parametrize("size", [0, 1, 100_000])
def test_tensors_arrive_whole(size: int) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    assert to_device(torch.arange(size), "cuda").tolist() == list(range(size))


@pytest.mark.gpu
def test_the_host_packs_a_row_while_the_device_is_busy() -> None:
    """The second time: page-locked memory and kernels are made at the first."""
    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    table = TokenTable(SAMPLES)
    flat = torch.arange(float(table.num_tokens))
    ((units,),) = plan_rows(SAMPLES, 1000, 1, share_prompts=True)

    def pack() -> Any:
        batch = micro_batch(build_row(SAMPLES, units), table, TokenValues(flat, flat, flat, None, None), "cuda")
        return batch, to_device(batch.row.tokens, "cuda"), row_params(batch.row, "cuda").attention.ragged

    pack()
    torch.cuda.synchronize()
    torch.cuda._sleep(BUSY_CYCLES)
    slept = torch.cuda.Event()
    slept.record()
    batch, tokens, ragged = pack()
    assert not slept.query()
    assert tokens.tolist() == build_row(SAMPLES, units).tokens.tolist()
    assert batch.inputs.weights.tolist() == flat[batch.index].tolist()
    assert ragged.keys.rows.tolist()[:3] == [0, 1, 2]
