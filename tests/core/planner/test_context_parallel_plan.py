"""Plans of rows that several ranks share: what each holds of one long answer, as docs/performance.md has it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import modelcfg
from core.config.schema import RunConfig
from core.planner import trainer
from core.planner.changes import size_problems
from core.planner.remedy import update_remedy
from launchers.show.memory_table import render_memory
from tests.support.plans import GIB, H100, plan, run

PAGE = (Path(__file__).parents[3] / "docs" / "performance.md").read_text(encoding="utf-8")
SHAPE = modelcfg.load("qwen3-4b")
PROMPT = 1024
ROW = re.compile(
    r"^\| ([\d,]+) \| (\d+) \| (\d+) \| ([\d,]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+)(, too much)? \|$", re.M
)


def long_row(tokens: int, gpus: int, context: int, **train: Any) -> RunConfig:
    """One sample to a row."""
    settings = {"max_tokens_per_micro_batch": tokens, "use_distributed_optimizer": True, "optimizer_state": "auto"}
    return run(
        "qwen3-4b",
        data={"max_prompt_tokens": PROMPT},
        rollout={"max_response_tokens": tokens - PROMPT},
        train=settings | train,
        placement={"trainers_per_node": gpus, "context_parallel": context},
    )


def number(text: str) -> int:
    return int(text.replace(",", ""))


def test_the_page_has_the_plans() -> None:
    rows = ROW.findall(PAGE)
    assert {(number(row[0]), int(row[1])) for row in rows} >= {(65536, 2), (131072, 2), (65536, 8), (131072, 8)}
    for tokens, gpus, context, own, activations, logits, update, too_much in rows:
        config = long_row(number(tokens), int(gpus), int(context))
        assert size_problems(config, SHAPE) == []
        made = plan(config)
        parts = made.phases["update"]["trainer"]
        found = [f"{size / GIB:.2f}" for size in (parts["activations"], parts["logits"], made.phase_bytes("update"))]
        assert found == [activations, logits, update]
        assert made.fits() is not bool(too_much)
        assert trainer.rank_row(config).tokens == number(own)


@pytest.mark.parametrize("recompute", ["full", "none"])
def test_activations_shrink_with_the_ranks(recompute: str) -> None:
    """Beside what does not: a workspace; and without recompute, each layer's copies of the keys of the whole row."""
    sizes = [trainer.update_work(long_row(65536, 8, n, recompute=recompute), SHAPE, "cuda") for n in (1, 2, 8)]
    one, two, eight = (sum(size.values()) for size in sizes)
    copies = 0 if recompute == "full" else 36 * 2 * SHAPE.key_value_size * 2 * (65536 * 17 // 16)
    assert two < 0.60 * one
    assert one / 8 < eight < one / 8 + copies + 2 * GIB


def test_a_row_of_odd_length_goes_to_ranks_that_share_layers_too() -> None:
    config = long_row(65537, 8, 4)
    config = config.model_copy(
        update={"placement": config.placement.model_copy(update={"tensor_parallel": 2, "sequence_parallel": True})}
    )
    assert trainer.rank_row(config).tokens == 16386


def test_shared_rows_are_no_graphs_and_have_a_group_more() -> None:
    alone, shared = (
        run("qwen3-0.6b", train={"recompute": "none"}, placement={"trainers_per_node": 2, "context_parallel": n})
        for n in (1, 2)
    )
    shape = modelcfg.load("qwen3-0.6b")
    assert trainer.possible_graphs(alone, shape, "cuda") != []
    assert trainer.possible_graphs(shared, shape, "cuda") == []
    assert trainer.num_communicators(shared) == trainer.num_communicators(alone) + 1


def test_the_plan_tells_the_ranks_of_a_row() -> None:
    config = long_row(65536, 8, 4)
    assert "8 trainer ranks: tensor 1 × pipeline 1 × context 4 × data 2" in render_memory(config, SHAPE, plan(config))
    assert "context" not in render_memory(long_row(65536, 8, 1), SHAPE, plan(long_row(65536, 8, 1)))


def test_more_ranks_for_a_row_are_proposed_where_samples_are_long() -> None:
    remedy = update_remedy(long_row(131072, 8, 1), SHAPE, H100)
    assert "placement.context_parallel: 2" in remedy
    many = long_row(131072, 8, 1)
    short = many.model_copy(update={"rollout": many.rollout.model_copy(update={"max_response_tokens": 1024})})
    assert "context_parallel" not in update_remedy(short, SHAPE, H100)


@pytest.mark.parametrize(
    ("placement", "train", "key", "found", "wanted"),
    [
        (
            {"trainers_per_node": 4, "context_parallel": 3},
            {},
            "placement.context_parallel",
            "tensor_parallel 1 × pipeline_parallel 1 × context_parallel 3 = 3",
            "a divisor of the 4 trainer ranks (1 nodes × 4 trainers_per_node)",
        ),
        (
            {"trainers_per_node": 8, "context_parallel": 2},
            {"global_batch_size": 126},
            "train.global_batch_size",
            "126 samples per optimiser step",
            "a multiple of the data-parallel size 4 (8 trainer ranks / 2 per model replica)",
        ),
    ],
)
def test_sizes_that_do_not_divide_are_refused(
    placement: dict[str, Any], train: dict[str, Any], key: str, found: str, wanted: str
) -> None:
    problems = size_problems(run("qwen3-4b", placement=placement, train=train), SHAPE)
    assert [(one.key, one.found, one.wanted) for one in problems] == [(key, found, wanted)]


def test_experts_go_over_the_ranks_of_a_row_too() -> None:
    placement = {"trainers_per_node": 8, "context_parallel": 4, "expert_parallel": 8}
    assert size_problems(run("qwen3-30b-a3b", placement=placement), modelcfg.load("qwen3-30b-a3b")) == []


def test_inputs_of_recomputed_layers_may_wait_on_the_host() -> None:
    """Two of 36 on the device; a chunk of 16 MiB more or less for each on the host."""
    inputs = 65536 * SHAPE.hidden_size * 2
    with_device, with_host = (long_row(65536, 8, 1, recompute_inputs=where) for where in ("device", "host"))
    work = [sum(trainer.update_work(config, SHAPE, "cuda").values()) for config in (with_device, with_host)]
    assert work[0] - work[1] == 34 * inputs
    on_host = trainer.waiting_bytes(with_host, SHAPE, "cuda")
    assert trainer.waiting_bytes(with_device, SHAPE, "cuda") == 0
    assert 35 * inputs <= on_host < 35 * (inputs + 2**24)
    assert plan(with_host).host_bytes - plan(with_device).host_bytes == 8 * on_host


def test_a_row_that_is_too_long_is_helped_by_it() -> None:
    config = long_row(131072, 2, 1)
    assert not plan(config).fits()
    assert plan(long_row(131072, 2, 1, recompute_inputs="host")).fits()
    assert "train.recompute_inputs: host" in update_remedy(config, SHAPE, H100)
