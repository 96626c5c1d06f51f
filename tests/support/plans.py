"""Run files as values, and GPUs, for tests of the planner."""

from __future__ import annotations

from typing import Any

import modelcfg
from core.config.schema import RunConfig
from core.planner import Device, MemoryPlan, plan_memory

GIB = 2**30
H100 = Device("cuda", int(79.1 * GIB), "H100 80 GB")
H200 = Device("cuda", int(139.8 * GIB), "H200")
A100_40 = Device("cuda", int(39.3 * GIB), "A100 40 GB")
CPU = Device("cpu", 16 * GIB)


def run(shape: str = "qwen3-4b", /, **sections: dict[str, Any]) -> RunConfig:
    """Of a known shape, 128 samples of 512 + 1536 tokens in a step; `sections` change single keys."""
    values: dict[str, dict[str, Any]] = {
        "model": {"path": "nowhere", "name": shape, "dtype": "bfloat16"},
        "data": {"max_prompt_tokens": 512},
        "rollout": {
            **{"num_rollout": 10, "rollout_batch_size": 16, "n_samples_per_prompt": 8},
            "max_response_tokens": 1536,
        },
        "train": {
            **{"global_batch_size": 128, "max_tokens_per_micro_batch": 8192, "recompute": "full"},
            "optimizer_state": "resident",
        },
        "placement": {"engine_memory_fraction": 0.6, "device": "cuda"},
    }
    for section, changes in sections.items():
        values[section] = {**values.get(section, {}), **changes}
    return RunConfig.model_validate(values)


def plan(config: RunConfig, device: Device = H100) -> MemoryPlan:
    """The plan of a run of a known model."""
    return plan_memory(config, modelcfg.load(config.model.name or ""), device)
