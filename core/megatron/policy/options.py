"""What of a run file the models of a trainer rank are built by: the policy's, and the critic's beside it."""

from __future__ import annotations

import torch

from core.checks.needs import loss_needs
from core.config.layout import pipeline_stages
from core.config.schema import RunConfig
from core.megatron.model import ModelOptions
from core.processes.device import resolve_dtype


def model_options(config: RunConfig, device: str) -> ModelOptions:
    """The options of the policy's model on this kind of device, "cpu" or "cuda"."""
    name = resolve_dtype(config.model.dtype, device)
    return ModelOptions(
        dtype=torch.bfloat16 if name == "bfloat16" else torch.float32,
        tensor_parallel=config.placement.tensor_parallel,
        stages=pipeline_stages(config.placement),
        expert_parallel=config.placement.expert_parallel,
        expert_tensor_parallel=config.placement.expert_tensor_parallel,
        context_parallel=config.placement.context_parallel,
        sequence_parallel=config.placement.sequence_parallel,
        recompute=config.train.recompute,
        recompute_layers=config.train.recompute_layers,
        inputs_on_host=config.train.recompute_inputs == "host",
        temperature=config.rollout.temperature,
        entropy_gradient=loss_needs(config.algorithm).entropy_gradient,
        lora=config.train.lora,
        seed=config.train.seed,
        choice=config.train.choice,
    )
