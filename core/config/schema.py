"""The run file as frozen, typed sections. Every key of a run file is declared here and nowhere else.

Light on purpose: no torch, so a login node can check a run file. Rules that need more than one key live in
`core/config/checks.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

PositiveInt = Annotated[int, Field(gt=0)]
NonNegativeInt = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
NonNegativeFloat = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """Base of all sections: immutable; unknown keys, infinity and NaN refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())


class ModelConfig(Section):
    """Which model, from where, in which precision."""

    path: str = Field(
        description="a HuggingFace directory, or package:NAME for a GGUF inside an installed Python package"
    )
    name: str | None = Field(
        None, description="a name known to `ebbtide models`; left out: the shape is read from config.json"
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="auto: bfloat16 on a GPU, float32 on a CPU"
    )
    reference_path: str | None = Field(None, description="the KL reference; left out: the model at `path`")


class DataConfig(Section):
    """Where prompts come from and how a row becomes a prompt."""

    source: Literal["jsonl", "parquet", "reasoning_gym", "python"] = "jsonl"
    path: str | None = Field(
        None, description="file (jsonl, parquet) or module.py:function / package.module:function (python)"
    )
    dataset: str | None = Field(None, description="reasoning_gym: the dataset's name")
    options: dict[str, Any] = Field(default_factory=dict, description="reasoning_gym or python: keyword arguments")
    size: PositiveInt | None = Field(
        None, description="reasoning_gym: how many rows to make; else: use the first rows only"
    )
    prompt_key: str = Field("prompt", description="row key of the prompt: a string, or a list of chat messages")
    label_key: str | None = Field("label", description="row key of the reference answer")
    apply_chat_template: bool = Field(True, description="wrap the prompt in the tokenizer's chat template")
    system_prompt: str | None = Field(
        None, description="None: the template's own default; an empty string: none at all"
    )
    chat_template: str | None = Field(
        None, description="a file with a jinja chat template, in place of the tokenizer's"
    )
    max_prompt_tokens: PositiveInt = Field(1024, description="longer prompts are left out, and counted in the log")
    shuffle: bool = True
    seed: int = 42


class RolloutConfig(Section):
    """How many samples a step makes, and how they are sampled."""

    num_rollout: PositiveInt = Field(description="steps of the loop")
    rollout_batch_size: PositiveInt = Field(description="prompts (groups) per step")
    n_samples_per_prompt: PositiveInt = Field(8, description="samples per prompt (the group)")
    max_response_tokens: PositiveInt = 1024
    temperature: PositiveFloat = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: int = Field(-1, description="-1: off")
    stop_token_ids: tuple[int, ...] = Field((), description="beside the tokenizer's own end token")
    seed: int = Field(
        1234, description="sample i of group g at step s is sampled with a seed derived from (seed, s, g, i)"
    )
    request_timeout_s: PositiveFloat = Field(1800.0, description="deadline of one generation request")


class RewardConfig(Section):
    """How a response is scored."""

    type: Literal["math", "reasoning_gym", "exact", "last_number", "regex", "python"] = "exact"
    pattern: str | None = Field(None, description="regex: its first group is compared with the label")
    path: str | None = Field(
        None,
        description="python: module.py:function or package.module:function, called as f(sample: RewardInput) -> float",
    )
    options: dict[str, Any] = Field(default_factory=dict, description="python: keyword arguments")
    timeout_s: PositiveFloat = Field(10.0, description="time limit per sample")
    num_workers: PositiveInt = Field(1, description="scoring processes per node")
    max_failed_share: Share = Field(
        0.1, description="share of a step's samples that may fail to be scored before the run stops"
    )


class AlgorithmConfig(Section):
    """Advantage and loss. Source: GRPO, arXiv:2402.03300; clip-higher: DAPO, arXiv:2503.14476."""

    advantage_estimator: Literal["grpo"] = "grpo"
    grpo_std_normalization: bool = Field(True, description="divide by the group's standard deviation (off: Dr. GRPO)")
    eps_clip: PositiveFloat = 0.2
    eps_clip_high: PositiveFloat | None = Field(None, description="None: equal to eps_clip")
    kl_loss_coef: NonNegativeFloat = 0.0
    kl_loss_type: Literal["k1", "k2", "k3"] = "k3"
    entropy_coef: NonNegativeFloat = 0.0
    loss_aggregation: Literal["token_mean", "sample_mean"] = "token_mean"


class TrainConfig(Section):
    """Optimiser, schedule, batch sizes."""

    global_batch_size: PositiveInt = Field(description="samples per optimiser step")
    num_steps_per_rollout: PositiveInt = Field(1, description="optimiser steps per loop step")
    lr: PositiveFloat = 1e-6
    min_lr: NonNegativeFloat = 0.0
    lr_schedule: Literal["constant", "linear", "cosine"] = "constant"
    lr_warmup_steps: NonNegativeInt = Field(0, description="optimiser steps from 0 to lr")
    weight_decay: NonNegativeFloat = 0.0
    adam_beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    adam_beta2: Annotated[float, Field(ge=0, lt=1)] = 0.98
    adam_eps: PositiveFloat = 1e-8
    clip_grad: NonNegativeFloat = Field(1.0, description="maximum gradient norm; 0: no clipping")
    max_tokens_per_micro_batch: PositiveInt = Field(8192, description="token budget of one packed micro-batch")
    share_prompts: bool = Field(True, description="compute the prompt of a group once for all its responses")
    use_distributed_optimizer: bool = False
    recompute: Literal["none", "full"] = Field("none", description="activation recompute, per layer")
    seed: int = 1234


class PlacementConfig(Section):
    """Who runs where. Colocated: trainer ranks and engines share the devices, in turns."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    num_nodes: PositiveInt = 1
    trainers_per_node: PositiveInt = Field(1, description="trainer ranks per node: one per GPU")
    engines_per_node: PositiveInt = 1
    engine_tensor_parallel: PositiveInt = 1
    tensor_parallel: PositiveInt = 1
    pipeline_parallel: PositiveInt = 1
    sequence_parallel: bool = False
    engine_memory_fraction: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.5, description="GPU: share of memory for the engine's weights and KV cache"
    )
    engine_max_total_tokens: PositiveInt | None = Field(
        None, description="KV cache size in tokens; None: the engine decides (CPU: 16384)"
    )
    engine_max_running_requests: PositiveInt = 64
    start_timeout_s: PositiveFloat = Field(600.0, description="deadline for all processes to be up")
    collective_timeout_s: PositiveFloat = Field(
        1800.0, description="deadline of a control collective (gloo); a rollout may last this long"
    )
    engine_restarts: NonNegativeInt = Field(3, description="how often a dead engine is restarted in one attempt")


class EvalSet(DataConfig):
    """An evaluation set: a data section of its own."""

    shuffle: bool = False


class EvalConfig(Section):
    """Evaluation before the first step, every `interval` steps, and after the last."""

    interval: NonNegativeInt = Field(0, description="steps between evaluations; 0: only before and after the run")
    sets: dict[str, EvalSet] = Field(default_factory=dict)
    n_samples_per_prompt: PositiveInt = 1
    temperature: NonNegativeFloat = Field(0.0, description="0: greedy")
    max_response_tokens: PositiveInt | None = Field(None, description="None: as in rollout")


class CheckpointConfig(Section):
    """When the run is saved. A last checkpoint is always written at the end."""

    interval: NonNegativeInt = Field(0, description="steps between checkpoints; 0: only at the end")
    keep: PositiveInt = Field(2, description="how many to keep")
    save_hf: bool = Field(True, description="also write the final model as a HuggingFace directory")


class LoggingConfig(Section):
    """What is written beside the trajectory store."""

    tensorboard: bool = True
    level: Literal["debug", "info", "warning"] = "info"
    show_samples: NonNegativeInt = Field(1, description="samples printed per step in the log")


class RunConfig(Section):
    """A whole run file."""

    name: str = Field("run", description="used in the run directory's name")
    model: ModelConfig
    data: DataConfig
    rollout: RolloutConfig
    reward: RewardConfig = RewardConfig()
    algorithm: AlgorithmConfig = AlgorithmConfig()
    train: TrainConfig
    placement: PlacementConfig = PlacementConfig()
    eval: EvalConfig = EvalConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    logging: LoggingConfig = LoggingConfig()
    runs_dir: Path = Field(Path("runs"), description="where run directories are made")
