from __future__ import annotations

import pickle
import struct
from dataclasses import replace

import pytest

from core.rollout import sample_bytes
from core.rollout.sample_bytes import DamagedSamples, pack, unpack
from core.samples import Prompt, Sample, Status
from tests.support.step_samples import make_samples


def a_step(num_groups: int, group_size: int) -> tuple[list[Sample], list[Prompt]]:
    """Samples, and the prompts that those of a group share."""
    samples = make_samples(num_groups, group_size)
    prompts = [samples[group * group_size].prompt for group in range(num_groups)]
    for sample in samples:
        sample.prompt = prompts[sample.group]
    return samples, prompts


def test_samples_come_back_exactly() -> None:
    samples, prompts = a_step(num_groups=5, group_size=8)
    assert unpack(pack(samples), prompts) == samples
    assert unpack(pack([]), []) == []


def test_hard_values_come_back() -> None:
    prompt = Prompt(3, "p", (1,), object(), {"not plain": object()})  # it is not sent
    engine = [-1e-45, -0.1, float("-inf")]
    sample = Sample(0, 1, prompt, [0, 2**31 - 1, 7], engine, Status.ABORTED, "step3", "a\ud800\x00b", [0, 1, 0], 0.1)
    (found,) = unpack(pack([sample]), [prompt])
    assert found == sample
    assert found.prompt is prompt
    assert found.status is Status.ABORTED
    assert [type(v) for v in (found.response_tokens[0], found.logprobs_engine[0], found.loss_mask[0])] == [
        int,
        float,
        int,
    ]


def test_groups_of_checkpoints_from_before_rewards_had_parts_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    samples, prompts = a_step(num_groups=2, group_size=4)
    with monkeypatch.context() as patch:
        patch.setattr(sample_bytes, "HEADER", sample_bytes.HEADER[:-1])
        data = pack(samples)
    assert unpack(data, prompts) == [replace(one, reward_parts={}) for one in samples]


def test_damaged_bytes_are_refused() -> None:
    samples, prompts = a_step(num_groups=2, group_size=4)
    data = pack(samples)
    longer = struct.pack("<Q", 2) + b"[]" + b"\0"
    for bad in (b"", data[:-1], data + b"\0", data[:40], pickle.dumps(samples), longer):
        with pytest.raises(DamagedSamples):
            unpack(bad, prompts)


@pytest.mark.parametrize("group", [-1, 1, "0", None, True])
def test_unknown_group_is_refused(group: object) -> None:
    sample = Sample(0, 0, Prompt(0, "p", (1,), None), [], [], Status.COMPLETED, "v")
    sample.group = group  # type: ignore[assignment]
    with pytest.raises(DamagedSamples, match="wanted one of the step's 1 prompts"):
        unpack(pack([sample]), [sample.prompt])
