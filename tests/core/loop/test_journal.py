from __future__ import annotations

import json
from pathlib import Path

import pytest

import modelcfg
from core.algorithm.batch import Batch
from core.config import load_run_file
from core.loop.journal import Journal
from core.loop.work import work_of
from core.megatron.sizes.flops import update_flops
from core.rollout.seeds import sample_seed
from core.run_dir.progress import Progress
from core.run_dir.run_directory import RunDirectory
from core.samples import Sample, UpdateResult
from core.trajectory import read_step, step_path
from tests.support.good_run import write_run
from tests.support.step_samples import make_samples

ELSEWHERE = "slurm.components=[{role: trainers}, {role: engines, nodes: 2, engines_per_node: 3}]"
SIZES = ["placement.num_nodes=2", "placement.engines_per_node=2", "placement.engine_tensor_parallel=2"]


TIMES = {"perf/rollout_time": 0.5}


def update_of(samples: list[Sample], logprobs_ref: list[list[float]] | None = None) -> UpdateResult:
    """An update that has found log-prob 0 for every token."""
    return UpdateResult({}, [[0.0] * len(sample.response_tokens) for sample in samples], logprobs_ref)


@pytest.mark.parametrize(("more", "num_gpus"), [([], 8), ([ELSEWHERE], 20)], ids=["colocated", "also elsewhere"])
def test_the_rate_per_gpu_counts_the_gpus_of_all_engines(more: list[str], num_gpus: int, tmp_path: Path) -> None:
    config = load_run_file(write_run(tmp_path), [*SIZES, "logging.tensorboard=false", *more])
    directory = RunDirectory(tmp_path)
    samples = make_samples(2, 4)
    journal = Journal(directory, config, Progress(directory.progress), 0, active=True)
    journal.stepped(0, Batch(samples, [0.0] * len(samples)), update_of(samples), TIMES)
    event = json.loads(directory.progress.read_text())
    num_tokens = sum(len(sample.response_tokens) for sample in samples)
    assert event["metrics"]["perf/tokens_per_gpu_per_sec"] == pytest.approx(num_tokens / 0.5 / num_gpus)


@pytest.mark.parametrize("has_reference", [True, False], ids=["with a reference", "without"])
def test_a_step_file_has_the_seeds_and_the_reference_log_probs(has_reference: bool, tmp_path: Path) -> None:
    config = load_run_file(write_run(tmp_path), ["logging.tensorboard=false", "rollout.seed=77"])
    samples = make_samples(3, 2)
    references = [[-0.5 * place for place in range(len(sample.response_tokens))] for sample in samples]
    journal = Journal(RunDirectory(tmp_path), config, Progress(tmp_path / "p"), 0, active=True)
    update = update_of(samples, references if has_reference else None)
    journal.stepped(4, Batch(samples, [0.0] * len(samples)), update, TIMES)
    found = read_step(step_path(tmp_path, 4))
    wanted = [sample_seed(77, "train", 4, group, index) for group in range(3) for index in range(2)]
    assert found.seed is not None
    assert found.seed.tolist() == wanted
    if not has_reference:
        assert found.logprobs_ref is None
        return
    assert found.logprobs_ref is not None
    assert [found.logprobs_ref[sample].tolist() for sample in range(len(samples))] == references


def test_tokens_seen_go_on_where_the_checkpoint_was(tmp_path: Path) -> None:
    """Steps 0 and 1 are told; the next attempt does step 1 again."""
    config = load_run_file(write_run(tmp_path), ["logging.tensorboard=false"])
    samples = make_samples(2, 3)
    each = sum(len(sample.prompt.tokens) + len(sample.response_tokens) for sample in samples)
    progress = Progress(tmp_path / "progress.jsonl")
    for first, steps in ((0, (0, 1)), (1, (1, 2))):
        journal = Journal(RunDirectory(tmp_path), config, progress, first, active=True)
        for step in steps:
            journal.stepped(step, Batch(samples, [0.0] * len(samples)), update_of(samples), TIMES)
    told = [json.loads(line)["metrics"] for line in (tmp_path / "progress.jsonl").read_text().splitlines()]
    assert [metrics["train/tokens_seen"] for metrics in told] == [each, 2 * each, 2 * each, 3 * each]


def test_the_share_of_arithmetic_that_an_update_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two GPUs that can do 1e6 operations per second, in 10 s; half of the tokens were computed."""
    shape = modelcfg.load("qwen3-0.6b")
    samples = make_samples(2, 3)
    work = work_of(samples, share_prompts=True)
    whole = update_flops(shape, work.tokens, work.targets, work.pairs)
    assert whole is not None
    monkeypatch.setattr("core.loop.journal.gpu_peak_flops", lambda _device: 1e6)
    two = ["logging.tensorboard=false", "placement.num_nodes=2", "placement.trainers_per_node=1"]
    config = load_run_file(write_run(tmp_path), two)
    directory = RunDirectory(tmp_path)
    journal = Journal(directory, config, Progress(directory.progress), 0, active=True, shape=shape)
    times = {**TIMES, "perf/train_time": 10.0}
    computed = UpdateResult({"perf/train_tokens": work.tokens / 2}, update_of(samples).logprobs)
    journal.stepped(0, Batch(samples, [0.0] * len(samples)), computed, times)
    assert json.loads(directory.progress.read_text())["metrics"]["perf/mfu"] == pytest.approx(whole / 2 / 10 / 2 / 1e6)
