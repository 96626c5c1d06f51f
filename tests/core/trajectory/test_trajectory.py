"""What is written is what is read, damaged files are named, and the documented examples run."""

from __future__ import annotations

import multiprocessing
import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from core.samples import Prompt, Sample, Status
from core.trajectory import (
    Ragged,
    StepRecord,
    TrajectoryError,
    list_steps,
    read_step,
    step_path,
    stored_samples,
    write_step,
)
from tests.support.step_samples import TEXTS, make_record, make_samples, write_run
from tests.support.waiting import COMMAND_S

DOC = Path(__file__).resolve().parents[3] / "docs" / "trajectory.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", DOC.read_text(encoding="utf-8"), re.DOTALL)


def assert_same(found: StepRecord, wanted: StepRecord) -> None:
    for field in fields(StepRecord):
        mine, other = getattr(found, field.name), getattr(wanted, field.name)
        if isinstance(other, Ragged):
            np.testing.assert_array_equal(mine.offsets, other.offsets, err_msg=field.name)
            mine, other = mine.values, other.values
        if field.name == "reward_parts" and other is not None:
            assert list(mine) == sorted(other)
            mine, other = np.array(list(mine.values())), np.array([other[name] for name in mine])
        if isinstance(other, np.ndarray):
            assert mine.dtype == other.dtype, field.name
            np.testing.assert_array_equal(mine, other, err_msg=field.name)
        else:
            assert mine == other, field.name


@pytest.mark.parametrize("shape", [(0, 0), (1, 1), (3, 4), (16, 8)], ids=lambda shape: f"{shape[0]}x{shape[1]}")
@pytest.mark.parametrize("seed", range(5))
def test_round_trip(shape: tuple[int, int], seed: int, tmp_path: Path) -> None:
    samples = make_samples(*shape, seed=seed)
    record = make_record(samples)
    write_step(step_path(tmp_path, 12), record)
    found = read_step(step_path(tmp_path, 12))
    assert_same(found, record)
    for i, sample in enumerate(samples):
        assert found.response_tokens[i].tolist() == sample.response_tokens
        assert found.prompt_tokens[i].tolist() == list(sample.prompt.tokens)
        assert found.loss_mask[i].tolist() == sample.loss_mask
        np.testing.assert_array_equal(found.logprobs_engine[i], np.float32(sample.logprobs_engine))
        assert found.response_text[i] == sample.response_text
        assert (found.reward[i] == sample.reward) if sample.reward is not None else np.isnan(found.reward[i])
        assert found.failure[i] == (sample.failure or "")
        assert found.parts(i) == sample.reward_parts
    assert [one.reward_parts for one in stored_samples(found)] == [one.reward_parts for one in samples]


def one_sample(**changes: Any) -> Sample:
    fields: dict[str, Any] = {"response_tokens": [1, 2], "logprobs_engine": [-0.5, -1.0], "response_text": "x"}
    return Sample(0, 0, Prompt(0, "p", (5,), None), status=Status.COMPLETED, weight_version="0", **(fields | changes))


def record_of(sample: Sample, **changes: Any) -> StepRecord:
    values: dict[str, Any] = {"advantages": [0.0], "logprobs_old": [[-0.5, -1.0]], "step": 0}
    return StepRecord.from_samples([sample], run="r", model="m", dtype="float32", **(values | changes))


def test_optional_fields_and_long_texts(tmp_path: Path) -> None:
    sample = one_sample(response_text="long " * 100_000)
    record = record_of(sample, logprobs_ref=[[-0.1, -0.2]], seeds=[2**62])
    write_step(tmp_path / "s.h5", record)
    assert_same(read_step(tmp_path / "s.h5"), record)


def test_one_advantage_per_token_is_stored_beside_its_mean_over_the_tokens_that_count(tmp_path: Path) -> None:
    samples = [one_sample(loss_mask=[1, 0]), one_sample(), one_sample(response_tokens=[], logprobs_engine=[])]
    advantages = [[0.5, 9.0], [1.0, -2.0], []]
    record = StepRecord.from_samples(
        samples,
        **{"step": 0, "run": "r", "model": "m", "dtype": "float32"},
        advantages=advantages,
        logprobs_old=[[-0.5, -1.0], [-0.5, -1.0], []],
    )
    write_step(tmp_path / "s.h5", record)
    found = read_step(tmp_path / "s.h5")
    assert_same(found, record)
    assert found.advantage.tolist() == [0.5, -0.5, 0.0]
    assert found.token_advantage is not None
    assert [found.token_advantage[i].tolist() for i in range(3)] == advantages


def test_characters_that_hdf5_cannot_hold_are_replaced(tmp_path: Path) -> None:
    write_step(tmp_path / "s.h5", record_of(one_sample(response_text="a\0b\ud800c")))
    text = read_step(tmp_path / "s.h5").response_text[0]
    assert text.startswith("a\u2400b\ufffd")
    assert text.endswith("c")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param({"advantages": []}, "advantages has 0 values for 1 samples", id="advantages"),
        pytest.param({"advantages": [[0.5]]}, "advantages of sample 0 has 1 values for 2 response", id="per token"),
        pytest.param({"seeds": [1, 2]}, "seeds has 2 values for 1 samples", id="seeds"),
        pytest.param({"logprobs_old": []}, "logprobs_old has 0 sequences for 1 samples", id="sequences"),
        pytest.param({"logprobs_old": [[0.0]]}, "logprobs_old of sample 0 has 1 values for 2 response", id="tokens"),
    ],
)
def test_lengths_must_fit(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        record_of(one_sample(), **changes)


def test_compressed_and_readable_with_plain_h5py(tmp_path: Path) -> None:
    record = make_record(make_samples(16, 8))
    path = step_path(write_run(tmp_path, [12]), 12)
    write_step(path, record)
    with h5py.File(path) as file:
        assert (file["response_tokens"].compression, file["response_tokens"].shuffle) == ("gzip", True)
        assert (file.attrs["schema_version"], file.attrs["step"], file.attrs["run"]) == (1, 12, "demo")
        assert list(file["response_text"].asstr()[:]) == list(record.response_text)
        assert set(file) == {field.name for field in fields(StepRecord)} - {
            *(
                "step",
                "run",
                "model",
                "dtype",
                "created",
                "metrics",
                "logprobs_ref",
                "logprobs_policy",
                "seed",
                "token_advantage",
                "routing",
            )
        } | {"prompt_offsets", "response_offsets"}


def test_steps_are_listed_without_what_is_unfinished(tmp_path: Path) -> None:
    assert list_steps(tmp_path) == []
    write_run(tmp_path, [2, 0, 11, 1_000_000])
    for name in (".step_000012.h5.x1", "step_12.h5", "other.h5"):
        (tmp_path / "steps" / name).touch()
    assert list_steps(tmp_path) == [0, 2, 11, 1_000_000]


@pytest.mark.parametrize("umask", [0o077, 0o022, 0o002], ids=oct)
def test_who_may_read_it_is_the_users_choice(umask: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        write_run(tmp_path, [3])
    finally:
        os.umask(before)
    assert step_path(tmp_path, 3).stat().st_mode & 0o777 == 0o666 & ~umask


def _damage(path: Path, kind: str) -> None:
    data = path.read_bytes()
    with h5py.File(path, "r+") as file:
        if kind == "dataset missing":
            del file["reward"]
        elif kind == "other version":
            file.attrs["schema_version"] = 99
        elif kind == "offsets":
            file["response_offsets"][-1] += 1
        elif kind == "lengths":
            del file["group"]
            file["group"] = [1]
    if kind == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "not HDF5":
        path.write_bytes(b"hello" * 100)
    elif kind == "flipped bit":
        with h5py.File(path) as file:
            place = file["response_tokens"].id.get_chunk_info(0).byte_offset + 20
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])


@pytest.mark.parametrize(
    "kind",
    ["truncated", "empty", "not HDF5", "flipped bit", "dataset missing", "other version", "offsets", "lengths"],
)
def test_damaged_file_is_named(kind: str, tmp_path: Path) -> None:
    path = step_path(write_run(tmp_path, [3]), 3)
    _damage(path, kind)
    with pytest.raises(TrajectoryError, match=rf"{path} cannot be read: .*wanted a whole step file"):
        read_step(path)


def test_missing_file_says_what_there_is(tmp_path: Path) -> None:
    write_run(tmp_path, [3])
    with pytest.raises(TrajectoryError, match=r"no step file .*step_000004.h5; wanted one of steps \[3\]"):
        read_step(step_path(tmp_path, 4))


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = step_path(write_run(tmp_path, [3]), 3)
    before = path.read_bytes()

    def full(_file: h5py.File, _record: StepRecord) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("core.trajectory.store._write", full)
    with pytest.raises(OSError, match="disk full"):
        write_step(path, make_record(make_samples(1, 1)))
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def _rewrite(path: Path, records: list[StepRecord]) -> None:
    for record in records:
        write_step(path, record)


def test_reader_beside_a_writer_always_meets_a_whole_file(tmp_path: Path) -> None:
    path = step_path(write_run(tmp_path, [12]), 12)
    records = [make_record(make_samples(2, 2, seed=seed)) for seed in range(40)]
    writer = multiprocessing.get_context("spawn").Process(target=_rewrite, args=(path, records))
    writer.start()
    num_reads = 0
    while writer.is_alive() or num_reads == 0:
        read_step(path)
        num_reads += 1
    writer.join(60)
    assert writer.exitcode == 0


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_documented_examples_run(example: str, tmp_path: Path) -> None:
    write_run(tmp_path / "runs" / "demo", [11, 12])
    root = DOC.parents[1]
    subprocess.run(
        [sys.executable, "-c", example],
        check=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        timeout=COMMAND_S,
    )


def test_documented_layout_is_complete(tmp_path: Path) -> None:
    named = set(re.findall(r"`(\w+)`", DOC.read_text(encoding="utf-8")))
    record = record_of(
        one_sample(response_text=TEXTS[0], reward_parts={"right": 1.0}), logprobs_ref=[[0.0, 0.0]], seeds=[1]
    )
    write_step(tmp_path / "s.h5", record)
    with h5py.File(tmp_path / "s.h5") as file:
        assert set(file) | set(file.attrs) <= named | {"reward_parts"}
        assert file["reward_parts/right"][:].tolist() == [1.0]
    assert "| `reward_parts/NAME` |" in DOC.read_text(encoding="utf-8")


def test_a_disk_without_room_is_told_in_the_systems_words(tmp_path: Path) -> None:
    """A file that may not grow, like a full disk, fails in the middle of a write; nothing of it is left."""
    program = f"""
import resource, signal
from pathlib import Path
from core.trajectory import write_step
from tests.support.step_samples import make_record, make_samples
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_step(Path({str(tmp_path)!r}) / "steps" / "step_000001.h5", make_record(make_samples(4, 4, seed=0)))
except OSError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=COMMAND_S)
    assert done.stdout.strip() == "[Errno 27] File too large", done.stderr
    assert not list((tmp_path / "steps").iterdir())


@pytest.mark.parametrize("kind", ["uint8", "int16"])
def test_experts_of_the_engine_come_back(kind: str, tmp_path: Path) -> None:
    """Compressed, of the samples that have some; two layers with three experts each."""
    samples = make_samples(3, 4)
    for place, sample in enumerate(samples):
        tokens = len(sample.prompt.tokens) + len(sample.response_tokens) - 1
        sample.routing = None if place == 5 else np.full((tokens, 6), place, kind)
    path = step_path(tmp_path, 3)
    write_step(path, make_record(samples))
    for sent, found in zip(samples, stored_samples(read_step(path)), strict=True):
        if sent.routing is None or not len(sent.routing):
            assert found.routing is None
        else:
            assert found.routing is not None
            assert (found.routing.dtype, found.routing.tolist()) == (kind, sent.routing.tolist())
    with h5py.File(path) as file:
        assert (file["routing"].compression, file["routing"].fletcher32) == ("gzip", True)
