"""The planner's bytes of a trainer rank against the flat buffers that real ranks make: equal, to the byte."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.ranks import run_ranks
from tests.support.tiny_models import (
    EXPERTS,
    POST_NORMS,
    SEEING,
    SEEING_EXPERTS,
    SIGMOID_EXPERTS,
    SINKS,
    STATEFUL,
    WHOLE_NORMS,
    tiny_models,
)

BF16 = {"model": {"dtype": "bfloat16"}}
SHARED = {"train": {"use_distributed_optimizer": True}}
STREAMED = {"train": {"optimizer_state": "streamed"}}
TWO = {"trainers_per_node": 2}
NO_KL = {"algorithm": {"kl_loss_coef": 0.0}}
# a vocabulary and a width that no buffer's alignment divides
ODD = {"vocab_size": 518, "intermediate_size": 146, "hidden_size": 52, "num_hidden_layers": 4}
LAYOUTS: dict[int, dict[str, dict[str, Any]]] = {
    1: {
        "fp32": {},
        "bf16": BF16,
        "fp32-shared": SHARED,
        "bf16-shared": {**BF16, **SHARED, **NO_KL},
        "bf16-streamed": {**BF16, **STREAMED},
        "fp32-streamed": STREAMED,
    },
    2: {
        "bf16-tp2": {**BF16, "placement": {**TWO, "tensor_parallel": 2}},
        "bf16-pp2": {**BF16, "placement": {**TWO, "pipeline_parallel": 2}},
        "bf16-pp2-shared": {**BF16, **SHARED, "placement": {**TWO, "pipeline_parallel": 2}},
        "bf16-dp2-shared": {**BF16, **SHARED, "placement": TWO},
        "fp32-dp2-shared": {**SHARED, "placement": TWO},
        "bf16-dp2-shared-streamed": {**BF16, "train": {**SHARED["train"], **STREAMED["train"]}, "placement": TWO},
    },
}
CUT = {"tensor_parallel": 2, "sequence_parallel": True, "expert_parallel": 2}
CUT_EXPERTS = {"tensor_parallel": 2, "sequence_parallel": True, "expert_tensor_parallel": 2}
WITH_EXPERTS: dict[int, dict[str, dict[str, Any]]] = {
    1: {"bf16": BF16, "bf16-shared": {**BF16, **SHARED}},
    2: {
        "bf16-ep2": {**BF16, "placement": {**TWO, "expert_parallel": 2}},
        "bf16-ep2-shared": {**BF16, **SHARED, "placement": {**TWO, "expert_parallel": 2}},
        "bf16-dp2-shared": {**BF16, **SHARED, "placement": TWO},
        "bf16-pp2-shared": {**BF16, **SHARED, "placement": {**TWO, "pipeline_parallel": 2}},
        "bf16-tp2-ep2": {**BF16, "placement": {**TWO, **CUT}},
        "bf16-tp2-etp2-shared": {**BF16, **SHARED, "placement": {**TWO, **CUT_EXPERTS}},
    },
    4: {
        "bf16-ep2-dp2-shared": {**BF16, **SHARED, "placement": {"trainers_per_node": 4, "expert_parallel": 2}},
        "bf16-tp2-ep2-dp2-shared": {**BF16, **SHARED, "placement": {"trainers_per_node": 4, **CUT}},
        "bf16-tp2-ep2-etp2-shared": {**BF16, **SHARED, "placement": {"trainers_per_node": 4, **CUT, **CUT_EXPERTS}},
    },
}
PPO = {"algorithm": {"advantage_estimator": "gae"}}
CRITICS: dict[int, dict[str, dict[str, Any]]] = {
    1: {"ppo-fp32": PPO, "ppo-bf16": {**BF16, **PPO}, "ppo-bf16-shared": {**BF16, **SHARED, **PPO}},
    2: {
        "ppo-bf16-tp2": {**BF16, **PPO, "placement": {**TWO, "tensor_parallel": 2}},
        "ppo-bf16-pp2-shared": {**BF16, **SHARED, **PPO, "placement": {**TWO, "pipeline_parallel": 2}},
        "ppo-bf16-dp2-shared": {**BF16, **SHARED, **PPO, "placement": TWO},
    },
}
WITH_CRITIC = ("llama", "qwen2-tied", EXPERTS)
EXPERT_KINDS = (EXPERTS, *SIGMOID_EXPERTS, WHOLE_NORMS, STATEFUL, SEEING_EXPERTS, SINKS)
DENSE = ("llama", "qwen2-tied", "qwen3-tied", POST_NORMS, SEEING)


def _possible(kind: str, layout: str) -> bool:
    """Two families have the same experts: one is tried in few layouts. Norms over all heads are not cut, nor experts
    with biases.
    """
    if (kind == WHOLE_NORMS and "tp2" in layout) or (kind == SINKS and "etp2" in layout):
        return False
    return kind != SEEING_EXPERTS or layout in ("bf16", "bf16-ep2-shared")


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    folder = tmp_path_factory.mktemp("planned")
    kinds = (*DENSE, *EXPERT_KINDS)
    models = tiny_models(kinds, folder, **ODD)
    found: dict[str, list[Any]] = {}
    for size in (1, 2, 4):
        cases = {
            f"{kind} {name}": {"model": model, "config": config, "actions": ["off_plan"]}
            for kind, model in models.items()
            for name, config in (WITH_EXPERTS if kind in EXPERT_KINDS else LAYOUTS).get(size, {}).items()
            if _possible(kind, name)
        }
        cases |= {
            f"{kind} {name}": {"model": models[kind], "config": config, "actions": ["off_plan"]}
            for kind in WITH_CRITIC
            for name, config in CRITICS.get(size, {}).items()
        }
        found |= run_ranks(folder / f"ranks{size}", size, cases)
    return found


EXPERT_LAYOUTS = [name for layouts in WITH_EXPERTS.values() for name in layouts]


@pytest.mark.parametrize(
    ("kind", "layout"), [(kind, name) for kind in EXPERT_KINDS for name in EXPERT_LAYOUTS if _possible(kind, name)]
)
def test_experts_have_the_planned_bytes(outcomes: dict[str, list[Any]], kind: str, layout: str) -> None:
    assert outcomes[f"{kind} {layout}"] == [{}]


@pytest.mark.parametrize("layout", [name for layouts in CRITICS.values() for name in layouts])
@pytest.mark.parametrize("kind", WITH_CRITIC)
def test_a_critic_has_the_planned_bytes(outcomes: dict[str, list[Any]], kind: str, layout: str) -> None:
    assert outcomes[f"{kind} {layout}"] == [{}]


DENSE_CASES = [(kind, name) for kind in DENSE for names in LAYOUTS.values() for name in names if _possible(kind, name)]


@pytest.mark.parametrize(("kind", "layout"), DENSE_CASES)
def test_every_part_has_the_planned_bytes(outcomes: dict[str, list[Any]], kind: str, layout: str) -> None:
    assert outcomes[f"{kind} {layout}"] == [{}]
