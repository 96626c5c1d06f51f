from __future__ import annotations

import json
import pickle
import struct
from dataclasses import replace

import numpy as np
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


@pytest.mark.parametrize("since", [1, 2])
def test_groups_of_checkpoints_from_before_some_fields_can_be_read(since: int, monkeypatch: pytest.MonkeyPatch) -> None:
    samples, prompts = a_step(num_groups=2, group_size=4)
    with monkeypatch.context() as patch:
        patch.setattr(sample_bytes, "HEADER", sample_bytes.HEADER[:-since])
        data = pack(samples)
    assert unpack(data, prompts) == [replace(one, reward_parts={}) if since == 2 else one for one in samples]


def with_experts(samples: list[Sample]) -> None:
    """Give two of every three experts, of two kinds of numbers."""
    for place, sample in enumerate(samples):
        kind = (None, "uint8", "int16")[place % 3]
        tokens = len(sample.prompt.tokens) + len(sample.response_tokens)
        sample.routing = None if kind is None else np.full((tokens, 6), place, kind)


def test_experts_come_back() -> None:
    samples, prompts = a_step(num_groups=3, group_size=4)
    with_experts(samples)
    for found, sent in zip(unpack(pack(samples), prompts), samples, strict=True):
        assert found == sent
        if sent.routing is None:
            assert found.routing is None
        else:
            assert found.routing is not None
            assert found.routing.dtype == sent.routing.dtype
            assert np.array_equal(found.routing, sent.routing)


@pytest.mark.parametrize("kind", [(2, 6, "<f8"), (2, -6, "|u1"), (2, "6", "|u1"), (2**40, 6, "|u1")])
def test_experts_of_another_kind_are_refused(kind: tuple[object, ...]) -> None:
    samples, prompts = a_step(num_groups=1, group_size=1)
    samples[0].routing = np.zeros((2, 6), "uint8")
    data = pack(samples)
    header = data[8 : 8 + int.from_bytes(data[:8], "little")]
    other = header.replace(b'[2,6,"|u1"]', json.dumps(kind).encode())
    assert other != header
    with pytest.raises(DamagedSamples):
        unpack(len(other).to_bytes(8, "little") + other + data[8 + len(header) :], prompts)


@pytest.mark.parametrize("experts", [False, True])
def test_damaged_bytes_are_refused(experts: bool) -> None:
    samples, prompts = a_step(num_groups=2, group_size=4)
    if experts:
        with_experts(samples)
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
