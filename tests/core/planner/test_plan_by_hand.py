"""What a plan counts for the buckets of a sync and for each pipeline stage, worked out by hand from known shapes.

Qwen3-8B: 36 layers, hidden 4096, feed-forward 12288, 32 query and 8 key heads of 128, vocabulary 151936, untied.
Qwen3-4B: hidden 2560, the same vocabulary. SmolLM2-135M: 134515008 parameters.
"""

from __future__ import annotations

from typing import Any

import pytest

import modelcfg
from core.planner import plan_memory
from core.residency.table import ENGINE, TABLE, TRAINER
from tests.support.plans import CPU, GIB, H100, plan, run

BF16, FP32 = 2, 4
ROW = 8192  # tokens of the largest row; all may be predicted
STAGES = 4
PER_STAGE = 36 // STAGES
# what two norms read and give; queries as projected, normed and turned, the attention's output twice; keys and values
# as projected, keys turned, values once more; gate, up and their product. In fp32 a number for each of two norms, for
# each head in the softmax, and for each head and group in the norms of queries and keys
LAYER_BYTES = BF16 * (4 * 4096 + 5 * 4096 + 4 * 1024 + 3 * 12288) + FP32 * (2 + 32 + 32 + 8)


@pytest.mark.parametrize(
    ("shape", "dtype", "bucket"),
    [
        ("qwen3-4b", "bfloat16", GIB),
        ("qwen3-8b", "bfloat16", 151936 * 4096 * BF16),  # the embedding has a bucket of its own
        ("qwen3-4b", "float32", 151936 * 2560 * FP32),
        ("smollm2-135m", "bfloat16", 134515008 * BF16),  # all of it
    ],
)
def test_a_sync_has_two_buckets_and_what_is_gathered_for_the_next(shape: str, dtype: str, bucket: int) -> None:
    found = plan(run(shape, model={"dtype": dtype}))
    assert found.phases["sync"][TRAINER]["buckets"] == 3 * bucket
    for phase in TABLE:
        assert ("buckets" in found.phases[phase][TRAINER]) is (phase == "sync")
        assert "buckets" not in found.phases[phase][ENGINE]


def test_the_buckets_are_part_of_what_a_sync_needs() -> None:
    """On GPUs of the trainer's own: what it holds beside them is in all of its phases."""
    found = plan(run("qwen3-8b", placement={"engines": "own_gpus"}))
    beside = found.trainers_bytes("sync")[0]
    assert found.trainers_bytes("sync")[1] - beside == 3 * 151936 * 4096 * BF16
    assert beside == found.trainers_bytes("score")[1]


def test_on_a_cpu_every_rank_of_a_node_has_buckets() -> None:
    config = run("smollm2-135m", model={"dtype": "float32"}, placement={"trainers_per_node": 2, "engines_per_node": 2})
    assert plan(config, CPU).phases["sync"][TRAINER]["buckets"] == 2 * 3 * 134515008 * FP32


def updates(**train: Any) -> list[dict[str, int]]:
    """What the update of 8B takes beside the flat buffers on each of four pipeline stages."""
    placement = {"trainers_per_node": STAGES, "pipeline_parallel": STAGES, "engine_memory_fraction": 0.3}
    config, shape = run("qwen3-8b", placement=placement, train=train), modelcfg.load("qwen3-8b")
    plans = [plan_memory(config, shape, H100, stage=stage) for stage in range(STAGES)]
    return [dict(found.phases["update"][TRAINER]) for found in plans]


@pytest.mark.parametrize(
    ("train", "kept"),
    [
        ({"recompute": "full"}, PER_STAGE * ROW * 4096 * BF16),
        ({"recompute": "none"}, PER_STAGE * ROW * LAYER_BYTES),
        ({"recompute": "selective"}, PER_STAGE * ROW * (LAYER_BYTES - BF16 * (2 * 4096 + 12288))),
        ({"recompute": "full", "recompute_layers": 4}, ROW * (4 * 4096 * BF16 + (PER_STAGE - 4) * LAYER_BYTES)),
    ],
    ids=str,
)
def test_each_stage_keeps_a_row_more_than_the_one_after_it(train: dict[str, Any], kept: int) -> None:
    """As many rows as there are stages from it on have gone forward through a stage and not yet backward."""
    first, second, third, _ = (parts["activations"] for parts in updates(**train))
    assert (first - second, second - third) == (kept, kept)


def test_only_the_last_stage_has_logits() -> None:
    """Its logits, the gradient of the output layer's weight, and the rows that are predicted."""
    found = updates()
    logits = BF16 * (ROW * 151936 + 151936 * 4096 + ROW * 4096)
    assert [parts.get("logits", 0) for parts in found] == [0, 0, 0, logits]
    # beside them one row's inputs of its layers, what the final norm reads, what is chosen, and 64 MiB to work in
    assert found[3]["activations"] == BF16 * ROW * 4096 * (PER_STAGE + 2) + 64 * 2**20
