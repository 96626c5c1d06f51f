"""A run file as a task for another trainer: the same prompts in the same order, settings under neutral names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from core.config.schema import RunConfig
from core.config.sections.eval import EvalConfig
from core.data import build
from core.pretrained.tokenizer import load_tokenizer
from core.processes.device import resolve_device


def measured(config: RunConfig, num_steps: int | None, device: str) -> RunConfig:
    """The run without what is not part of a step: evaluations, the final HuggingFace model, event files."""
    update = {
        "rollout": config.rollout.model_copy(update={"num_rollout": num_steps or config.rollout.num_rollout}),
        "placement": config.placement.model_copy(update={"device": resolve_device(device)}),
        "checkpoint": config.checkpoint.model_copy(update={"save_hf": "off"}),
        "logging": config.logging.model_copy(update={"tensorboard": False}),
        "eval": EvalConfig(),
    }
    return config.model_copy(update=update)


def check(config: RunConfig) -> None:
    """Refuse a run file whose settings `task` does not pass on.

    Raises:
        ValueError: naming each of them.
    """
    batch = config.rollout.rollout_batch_size * config.rollout.n_samples_per_prompt
    wanted = {
        "algorithm.kl_loss_coef": (config.algorithm.kl_loss_coef, 0),
        "algorithm.entropy_coef": (config.algorithm.entropy_coef, 0),
        "train.num_steps_per_rollout": (config.train.num_steps_per_rollout, 1),
        "train.global_batch_size": (config.train.global_batch_size, batch),
        "train.lr_warmup_steps": (config.train.lr_warmup_steps, 0),
        "placement.num_nodes": (config.placement.num_nodes, 1),
        "placement.trainers_per_node": (config.placement.trainers_per_node, 1),
        "placement.engines_per_node": (config.placement.engines_per_node, 1),
    }
    wrong = [f"{key} is {found}, wanted {value}" for key, (found, value) in wanted.items() if found != value]
    if wrong:
        raise ValueError(f"the comparison does not cover this run file: {'; '.join(wrong)}: change it with --set")


def task(config: RunConfig, model_dir: Path) -> dict[str, Any]:
    """All that a GRPO trainer needs for the run `config`, as JSON: settings, and one prompt per group and step."""
    rollout, train, algorithm = config.rollout, config.train, config.algorithm
    source = build(config.data, load_tokenizer(model_dir))
    num_prompts = rollout.num_rollout * rollout.rollout_batch_size
    prompts = [source.prompt(position) for position in range(num_prompts)]
    return {
        "model_dir": str(model_dir),
        "device": config.placement.device,
        "num_steps": rollout.num_rollout,
        "batch_size": train.global_batch_size,
        "group_size": rollout.n_samples_per_prompt,
        "max_response_tokens": rollout.max_response_tokens,
        "sampling": {"temperature": rollout.temperature, "top_p": rollout.top_p, "top_k": max(rollout.top_k, 0)},
        "optimiser": {
            "learning_rate": train.lr,
            "lr_scheduler_type": train.lr_schedule,
            "weight_decay": train.weight_decay,
            "adam_beta1": train.adam_beta1,
            "adam_beta2": train.adam_beta2,
            "adam_epsilon": train.adam_eps,
            "max_grad_norm": train.clip_grad,
        },
        "eps_clip": (algorithm.eps_clip, algorithm.eps_clip_high),
        "std_normalization": algorithm.grpo_std_normalization,
        "loss_aggregation": algorithm.loss_aggregation,
        "reward": config.reward.model_dump(mode="json"),
        "prompts": [
            {"text": p.text, "tokens": list(p.tokens), "label": p.label, "metadata": dict(p.metadata)} for p in prompts
        ],
    }
