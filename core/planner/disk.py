"""What a run leaves on disk: checkpoints, samples, the model."""

from __future__ import annotations

from dataclasses import dataclass

from common.units import FP32_BYTES
from core.checks.needs import may_differ_by_token, needs_reference, needs_values
from core.config.schema import RunConfig
from core.doors import ONE_TURN
from core.planner.routing import step_bytes
from core.planner.trainer import element_bytes
from modelcfg import ModelShape, num_parameters
from modelcfg.adapters import adapter_parameters
from modelcfg.chosen import num_trained
from modelcfg.shards import value_parameters

TOKEN_BYTES = {"prompt": 4, "response": 4 + 1 + 4 + 4}  # ids; ids, mask, log-probs of engine and trainer
TEXT_BYTES = 5  # of a token in words
SAMPLE_BYTES = 384  # numbers and names beside the tokens, parts of the reward among them


@dataclass(frozen=True)
class DiskPlan:
    """Bytes in the run directory. `step`: at most, before compression, per step of the loop. `model`: all together."""

    checkpoint: int
    checkpoints_kept: int
    step: int
    model: int


def plan_disk(config: RunConfig, shape: ModelShape, device: str) -> DiskPlan:
    """Whatever the layout: a checkpoint holds every parameter once, and the optimiser state of what is trained; of
    a model with adapters these alone.
    """
    size, parameters = element_bytes(config, device), num_parameters(shape)
    # parameters, and where they are not fp32 or shared out their masters; two moments
    masters = size < FP32_BYTES or config.train.use_distributed_optimizer
    each = size + (FP32_BYTES if masters else 0) + 2 * FP32_BYTES
    lora = config.train.lora
    trained = num_trained(shape, config.train.choice)
    frozen = parameters - trained  # in the files, too, but for the base of adapters
    if lora is not None:
        trained, frozen = sum(adapter_parameters(shape, lora.rank, lora.targets).values()), 0
    rollout = config.rollout
    optional = FP32_BYTES * (needs_reference(config.algorithm) + may_differ_by_token(config.algorithm))
    sample = SAMPLE_BYTES + config.data.max_prompt_tokens * (TOKEN_BYTES["prompt"] + TEXT_BYTES)
    has_turns = rollout.generate != ONE_TURN or rollout.carry_over_tokens is not None
    texts = 2 if has_turns else 1  # of the whole response, and of its turns
    sample += rollout.max_response_tokens * (TOKEN_BYTES["response"] + optional + texts * TEXT_BYTES)
    experts = step_bytes(config, shape) if config.algorithm.routing_replay == "engine" else 0
    moving = size * parameters if config.algorithm.ref_update_interval else 0
    return DiskPlan(
        checkpoint=each * (trained + (_of_critic(shape) if needs_values(config.algorithm) else 0))
        + size * frozen
        + moving,
        checkpoints_kept=config.checkpoint.keep,
        step=sample * rollout.rollout_batch_size * rollout.n_samples_per_prompt + experts,
        model=size * parameters * _num_models(config),
    )


def _of_critic(shape: ModelShape) -> int:
    """Parameters of a value model."""
    return sum(value_parameters(shape).values())


def _num_models(config: RunConfig) -> int:
    """HuggingFace directories at the end of the run."""
    interval, steps = config.checkpoint.model_interval, config.rollout.num_rollout
    return config.checkpoint.model_at_end + ((steps - 1) // interval if interval else 0)
