"""The run file as frozen, typed sections. Every key of a run file is declared here and nowhere else.

Light on purpose: no torch, so a login node can check a run file. Rules that need more than one key live in
`core/checks/`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from common.duration import seconds_of
from common.mistake import Wrong, show
from modelcfg.chosen import Choice

PositiveInt = Annotated[int, Field(gt=0)]
NonNegativeInt = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
NonNegativeFloat = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
EVERY = "every "  # of `save_hf`
AUTO = "auto"  # of `checkpoint.every`


def _minutes(value: Any) -> Any:
    """A bare number is a time limit in minutes, as it is for Slurm."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _auto_or_duration(value: Any) -> Any:
    """A time as a person writes it, or the word for the shortest that is cheap."""
    if value not in (None, AUTO) and (not isinstance(value, str) or seconds_of(value) is None):
        raise Wrong(repr(value), "auto, or a time such as 90s, 30m or 2h", "give auto, a number and its unit, or null")
    return value


def _end_off_or_every(value: Any) -> Any:
    """A time at which models are written. True and False are older spellings; YAML reads a bare off as false."""
    if isinstance(value, bool):
        return "end" if value else "off"
    if value in ("end", "off"):
        return value
    if not isinstance(value, str) or not re.fullmatch(EVERY + r"[1-9]\d*", value):
        raise Wrong(show(value), "end, off, or `every N`, N steps", "write e.g. every 20")
    return value


def _on_or_off(value: Any) -> Any:
    """YAML reads a bare on and off as true and false."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


def _option_value(value: Any) -> Any:
    """A number is written as it is, and a switch without a value: `hold: true`."""
    if value is False:
        raise Wrong("false", "a value, or true for a switch", "leave the option out")
    return "" if value is True else str(value) if isinstance(value, int) else value


def _as_list(value: Any) -> Any:
    """A name alone stands for a list of it."""
    if value == []:
        raise Wrong("an empty list", "a layer or more", "leave the key out for all of them")
    return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value


def _expressions(value: Any) -> Any:
    """One alone stands for a list of it."""
    found = (value,) if isinstance(value, str) else value
    for one in found if isinstance(found, list | tuple) else ():
        try:
            re.compile(one)
        except re.error as error:
            wanted = "regular expressions over HuggingFace's names of parameters"
            raise Wrong(f"{one!r}, which does not compile ({error})", wanted, "correct it") from error
        except TypeError:
            pass  # no text, which is another mistake
    return tuple(found) if isinstance(found, list) else found


def _named(value: Any) -> Any:
    """A name alone stands for a mapping with it."""
    return {"name": value} if isinstance(value, str) else value


class Section(BaseModel):
    """Base of all sections: immutable; unknown keys, infinity and NaN refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())


class ModelConfig(Section):
    """Which model, from where, in which precision."""

    path: str = Field(
        description="a HuggingFace directory, the name of a model on the hub that `ebbtide fetch` has fetched, or "
        "package:NAME for a GGUF inside an installed Python package"
    )
    name: str | None = Field(
        None, description="a name known to `ebbtide models`; left out: the shape is read from config.json"
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="auto: bfloat16 on a GPU, float32 on a CPU"
    )
    reference_path: str | None = Field(None, description="the KL reference; left out: the model at `path`")


class DataConfig(Section):
    """Source of the prompts, and how a row becomes a prompt."""

    source: Literal["jsonl", "parquet", "reasoning_gym", "python"] = Field("jsonl", description="kind of source")
    path: str | tuple[str, ...] | None = Field(
        None,
        description="a file, a folder with the shards of one set, or a list of files (jsonl, parquet), also in a hub's "
        "data set as `ebbtide fetch --dataset` names them, or module.py:function / package.module:function (python)",
    )
    dataset: str | None = Field(None, description="reasoning_gym: the dataset's name")
    options: dict[str, Any] = Field(default_factory=dict, description="reasoning_gym or python: keyword arguments")
    size: PositiveInt | None = Field(
        None, description="reasoning_gym: how many rows to make; else: use the first rows only"
    )
    prompt_key: str = Field(
        "prompt",
        description="row key of the prompt: a string, or a list of chat messages; a dotted key reaches into mappings",
    )
    label_key: str | None = Field(
        "label",
        description="row key of the reference answer, dotted as above. Where rollout.generate is rows: of the answer "
        "that is learnt, and null, which is the default then: the assistant's turns of the prompt are",
    )
    apply_chat_template: bool = Field(True, description="wrap the prompt in the tokenizer's chat template")
    system_prompt: str | None = Field(
        None, description="null: the template's own default; an empty string: none at all"
    )
    chat_template: str | None = Field(
        None, description="a file with a jinja chat template, in place of the tokenizer's"
    )
    chat_template_options: dict[str, Any] = Field(
        default_factory=dict, description="variables that the chat template reads, such as {enable_thinking: false}"
    )
    max_prompt_tokens: PositiveInt = Field(1024, description="longer prompts are left out, and counted in the log")
    shuffle: bool = Field(True, description="a new order in each epoch, from `seed` and the epoch")
    seed: int = Field(42, description="of the order, and of what reasoning_gym makes")


class RolloutConfig(Section):
    """How many samples a step makes, and how they are sampled."""

    num_rollout: PositiveInt = Field(description="steps of the loop")
    num_epoch: PositiveInt | None = Field(
        None,
        description="in place of num_rollout: epochs, which are steps once the rows of `data` have been counted",
    )
    rollout_batch_size: PositiveInt = Field(description="prompts (groups) per step")
    over_sampling_batch_size: PositiveInt | None = Field(
        None,
        description="groups drawn per step, for `filter` to choose from; null: rollout_batch_size",
    )
    filter: str = Field(
        "none",
        description="which groups drawn are trained; nonzero_std: the first whose rewards differ, and where these are "
        "too few the first others; or module.py:function / package.module:function of your own, called as f(group) -> "
        "True, False or the reason why not",
    )
    filter_options: dict[str, Any] = Field(default_factory=dict, description="its keyword arguments")
    filter_rounds: PositiveInt = Field(
        1,
        description="how often a step draws over_sampling_batch_size groups at most, if too few have passed `filter`",
    )
    carry_over_tokens: PositiveInt | None = Field(
        None,
        description="responses grow by this number of tokens at a time; once rollout_batch_size of the "
        "over_sampling_batch_size groups are complete the step ends, and the others go on in the next one. null: a "
        "step ends with its last response",
    )
    carry_over_steps: PositiveInt = Field(
        4, description="carry_over_tokens: a group is carried over this often at most; the last step waits for it"
    )
    mask_carried: bool = Field(
        False, description="carry_over_tokens: tokens that the weights of earlier steps made are not learnt from"
    )
    n_samples_per_prompt: PositiveInt = Field(
        8, description="samples per prompt (the group); 1 where `generate` is rows"
    )
    max_response_tokens: PositiveInt = Field(
        1024, description="a response that gets this long is cut off there; one of a row is left out if it is longer"
    )
    temperature: PositiveFloat = Field(1.0, description="of sampling; the log-probs of training use the same")
    top_p: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="1, which is off: the trainer computes log-probs over all tokens; see eval.top_p"
    )
    top_k: int = Field(-1, description="-1, which is off, for the same reason; see eval.top_k")
    stop_token_ids: tuple[int, ...] = Field((), description="beside the tokenizer's own end token")
    seed: int = Field(
        1234, description="sample i of group g at step s is sampled with a seed derived from (seed, s, g, i)"
    )
    deterministic: bool = Field(
        False,
        description="GPU engines heed the seeds and compute each sample independently of the others under way, at a "
        "cost in speed; off: they ignore the seeds, and a repeated step gets other samples. CPU engines are always so",
    )
    request_timeout_s: PositiveFloat = Field(1800.0, description="deadline of one generation request")
    generate: str = Field(
        "one_turn",
        description="how a prompt becomes a sample: one_turn; dialogue, which is the default where there are tools or "
        "an environment; rows: the row has the answer, which is to be learnt (sft.md), and other keys get other "
        "defaults; or module.py:function / package.module:function of your own: async f(task, engine) -> Response or a "
        "list of them",
    )
    generate_options: dict[str, Any] = Field(default_factory=dict, description="its keyword arguments")
    generate_timeout_s: PositiveFloat = Field(
        600.0, description="time limit for one sample of your own function, but for what it waits for the engine then"
    )
    generate_workers: PositiveInt | None = Field(
        None,
        description="processes of your own function per node; null: one for every 128 samples of a step, in up to a "
        "quarter of the cores",
    )
    environment: str | None = Field(
        None,
        description="dialogue: who answers the model: module.py:Class or package.module:Class, with reset and step",
    )
    environment_options: dict[str, Any] = Field(default_factory=dict, description="keyword arguments of the class")
    tools: tuple[str, ...] = Field(
        (),
        description="dialogue: what the model may call: typed functions, each module.py:name or package.module:name",
    )
    tool_format: str = Field(
        "plain",
        description='how the model writes a call: plain, which is <tool_call>{"name": ..., "arguments": {...}}'
        "</tool_call>; one of SGLang's parsers by its name, such as qwen25, llama3, glm45; or a function of your own",
    )
    max_turns: PositiveInt = Field(
        8, description="dialogue: turns of the model; an episode that is not over then is cut off"
    )
    call_timeout_s: PositiveFloat = Field(
        30.0, description="dialogue: time limit for one call of a tool, and for one step of the environment"
    )
    rewritten_past: Literal["refuse", "keep", "split"] = Field(
        "refuse",
        description="where the chat template writes the model's earlier turns otherwise than it said them: refuse; "
        "keep: as it said them; split: as the template wants, each such turn a training sample of its own. With "
        "`generate: rows` refuse or split, which makes each turn of a row a sample of its own",
    )

    @model_validator(mode="after")
    def _speaks_in_turns(self) -> Self:
        """Tools or an environment make a dialogue, where nothing else is asked for."""
        if (self.environment or self.tools) and "generate" not in self.model_fields_set:
            self.__dict__["generate"] = "dialogue"  # the section is frozen
            self.__pydantic_fields_set__.add("generate")
        return self

    @property
    def num_drawn(self) -> int:
        """Groups that a step draws at a time."""
        return self.over_sampling_batch_size or self.rollout_batch_size


KEY_OF_MAPPING = "of a reward that is a mapping of numbers: the one that counts; all are logged and stored"


class RewardConfig(Section):
    """How a response is scored."""

    type: str = Field(
        "exact",
        description="how a response is compared with the label: math, deepscaler, dapo, reasoning_gym, exact, "
        "last_number, regex, choice, f1, code; random: by chance; environment: the sum of what its steps gave; http: "
        "what an address answers; or module.py:function / package.module:function of your own, called as "
        "f(sample: RewardInput) -> float; python: an older way to say that it is the function at `path`",
    )
    pattern: str | None = Field(None, description="regex: its first group is compared with the label")
    path: str | None = Field(None, description="with type python: the function, as `type` may name it itself")
    options: dict[str, Any] = Field(default_factory=dict, description="keyword arguments of what `type` names")
    key: str = Field("reward", description=KEY_OF_MAPPING)
    overlong_buffer_tokens: PositiveInt | None = Field(
        None,
        description="DAPO's penalty on long responses of training: nothing up to this number of tokens below "
        "rollout.max_response_tokens, then linear; null: none",
    )
    overlong_penalty: PositiveFloat = Field(1.0, description="what it takes off a response at the limit")
    timeout_s: PositiveFloat = Field(10.0, description="time limit per sample")
    num_workers: PositiveInt = Field(1, description="scoring processes per node")
    max_failed_share: Share = Field(
        0.1, description="share of a step's samples that may fail to be scored before the run stops"
    )


class AlgorithmConfig(Section):
    """Advantage and loss. Source: GRPO, arXiv:2402.03300; clip-higher: DAPO, arXiv:2503.14476."""

    advantage_estimator: str = Field(
        "grpo",
        description="a built-in (algorithms.md), or module.py:function / package.module:function of your own; none "
        "where rollout.generate is rows",
    )
    advantage_options: dict[str, Any] = Field(default_factory=dict, description="its keyword arguments")
    loss: str = Field(
        "clipped",
        description="a built-in (algorithms.md), or module.py:function / package.module:function of your own; sft "
        "where rollout.generate is rows",
    )
    loss_options: dict[str, Any] = Field(default_factory=dict, description="its keyword arguments")
    grpo_std_normalization: bool = Field(True, description="divide by the group's standard deviation (off: Dr. GRPO)")
    eps_clip: PositiveFloat = Field(0.2, description="the policy ratio is clipped below at 1 - eps_clip")
    eps_clip_high: PositiveFloat | None = Field(None, description="and above at 1 + this; null: equal to eps_clip")
    eps_clip_c: Annotated[float, Field(gt=1)] | None = Field(
        None,
        description="dual clip: a token of negative advantage A costs at most this times -A; null: no bound",
    )
    kl_loss_coef: NonNegativeFloat = Field(0.0, description="weight of the KL to the reference; 0: no reference model")
    kl_loss_type: Literal["k1", "k2", "k3", "low_var_kl"] = Field(
        "k3", description="estimator of the KL; low_var_kl: k3, at most 10"
    )
    kl_coef: NonNegativeFloat = Field(
        0.0,
        description="weight of the KL to the reference in the rewards of tokens, beside 0 in the loss; 0: it is not "
        "there",
    )
    ref_update_interval: PositiveInt | None = Field(
        None,
        description="the policy becomes its own reference each time it has learnt from this number of steps; null: the "
        "reference stays",
    )
    kl_unbiased: bool = Field(False, description="the KL times the policy's ratio to the old one")
    entropy_coef: NonNegativeFloat = Field(0.0, description="weight of the entropy bonus")
    loss_aggregation: Literal["token_mean", "sample_mean", "prompt_mean", "constant"] = Field(
        "token_mean",
        description="mean over all tokens of a global batch; over samples, or prompts, of the mean over their tokens; "
        "constant: over samples of the sum over their tokens / rollout.max_response_tokens (Dr. GRPO)",
    )
    old_logprobs: Literal["trainer", "engine"] = Field(
        "trainer",
        description="what the policy's ratio is over: log-probs of the trainer before its first optimiser step; or "
        "those that the engine gave with the sample, which saves a pass where a step has several optimiser steps",
    )
    routing_replay: Literal["none", "trainer", "engine"] = Field(
        "none",
        description="models with experts: trainer: the experts that the trainer's routers choose for a step's tokens "
        "before its first optimiser step are those of all its optimiser steps; engine: those that the engine chose, "
        "which are returned and stored with the samples, are those of all passes of the policy; none: the routers "
        "choose anew in each",
    )
    importance: Literal["none", "tis", "icepop", "sequence", "mis"] = Field(
        "none",
        description="weight of a token for what engine and trainer disagree about: the ratio of their probabilities of "
        "the token (tis, icepop) or of its response (sequence, mis), bounded (tis, sequence) or 0 beyond the bounds",
    )
    importance_low: NonNegativeFloat = Field(0.0, description="lower bound of this weight")
    importance_high: PositiveFloat = Field(2.0, description="upper bound of this weight")
    opsm_delta: PositiveFloat | None = Field(
        None,
        description="a response of negative advantage is masked where its mean log-prob has fallen by more than this "
        "since it was sampled; null: none is",
    )


class LoraConfig(Section):
    """Low-rank adapters, which are trained instead of the model's own weights ([lora.md](lora.md))."""

    rank: PositiveInt = Field(description="rows of each adapter's first matrix, columns of its second")
    alpha: PositiveFloat | None = Field(
        None, description="what an adapter adds is scaled by alpha / rank; null: alpha is the rank, which scales by 1"
    )
    targets: Annotated[tuple[str, ...], BeforeValidator(_as_list)] = Field(
        ("all-linear",),
        description="the layers that have an adapter, by HuggingFace's names: q_proj, v_proj, down_proj, …; "
        "all-linear: every one of attention and feed-forward",
    )

    @property
    def scale(self) -> float:
        """Factor of what an adapter adds."""
        return 1.0 if self.alpha is None else self.alpha / self.rank


class CriticConfig(Section):
    """The critic, which there is where the advantage needs values (gae). What is not here is as in `train`."""

    lr: PositiveFloat | None = Field(None, description="its learning rate after warm-up; null: train.lr")
    lr_warmup_steps: NonNegativeInt | None = Field(
        None, description="its optimiser steps from 0 to lr; null: train.lr_warmup_steps"
    )
    value_clip: PositiveFloat | None = Field(
        0.2, description="a value counts as changed by at most this in a step of the loop; null: no clip"
    )
    num_critic_only_steps: NonNegativeInt = Field(
        0, description="steps of the loop at the start in which the critic learns alone, and the policy stays"
    )


class TrainConfig(Section):
    """Optimiser, schedule, batch sizes."""

    global_batch_size: PositiveInt = Field(description="samples per optimiser step")
    num_steps_per_rollout: PositiveInt = Field(1, description="optimiser steps per loop step")
    lr: PositiveFloat = Field(1e-6, description="learning rate after warm-up")
    min_lr: NonNegativeFloat = Field(0.0, description="linear, cosine: learning rate at the end")
    lr_schedule: Literal["constant", "linear", "cosine"] = Field(
        "constant", description="from lr to min_lr over the run"
    )
    lr_warmup_steps: NonNegativeInt = Field(0, description="optimiser steps from 0 to lr")
    lr_decay_steps: PositiveInt | None = Field(
        None,
        description="linear, cosine: optimiser steps, warm-up among them, until the rate is min_lr, where it stays; "
        "null: those of the run",
    )
    reset_optimizer_states: bool = Field(
        False, description="Adam's moments begin at 0 in every loop step; the learning rate goes on"
    )
    weight_decay: NonNegativeFloat = Field(
        0.0, description="decoupled, as in AdamW; not of parameters with one dimension: norms and biases"
    )
    adam_beta1: Annotated[float, Field(ge=0, lt=1)] = Field(0.9, description="decay of the first moment")
    adam_beta2: Annotated[float, Field(ge=0, lt=1)] = Field(0.98, description="decay of the second moment")
    adam_eps: PositiveFloat = Field(1e-8, description="added to the root of the second moment")
    clip_grad: NonNegativeFloat = Field(1.0, description="maximum gradient norm; 0: no clipping")
    dither_masters: bool = Field(
        True,
        description="bfloat16: fp32 masters start anywhere in the interval that rounds to their weight, so that small "
        "updates show at once; off: in its middle. Not done for tied embeddings over pipeline stages",
    )
    max_tokens_per_micro_batch: PositiveInt = Field(8192, description="token budget of one packed micro-batch")
    share_prompts: bool = Field(True, description="compute the prompt of a group once for all its responses")
    cuda_graphs: bool = Field(
        True,
        description="replay small micro-batches as CUDA graphs, which keep memory: where GPUs hold everything at once, "
        "in bfloat16, without tensor, pipeline or context parallel, without recompute and frozen parameters",
    )
    use_distributed_optimizer: bool = Field(False, description="share out optimiser state over data-parallel ranks")
    optimizer_state: Literal["auto", "resident", "streamed"] = Field(
        "auto",
        description="Adam's masters and moments, 12 bytes per parameter: resident: on the device in an update; "
        "streamed: in host memory, from where they pass through the device piece by piece; auto: streamed where a GPU "
        "has no room for them",
    )
    recompute: Literal["none", "selective", "full"] = Field(
        "none",
        description="what a layer computes again in the backward pass instead of keeping it: selective: the outputs of "
        "norms and activations, which costs next to nothing; full: everything but its input",
    )
    recompute_layers: PositiveInt | None = Field(
        None, description="recompute full: number of layers to recompute in each pipeline stage; null: all of them"
    )
    recompute_inputs: Literal["device", "host"] = Field(
        "device",
        description="recompute full: where inputs of recomputed layers wait for the backward pass: device; host: "
        "page-locked host memory, to and from which they are copied while layers beside them compute. For long rows",
    )
    only: Annotated[tuple[str, ...], BeforeValidator(_expressions)] = Field(
        (),
        description="regular expressions over HuggingFace's names of parameters: those in which one is found are "
        "trained, and no others (algorithms.md); none given: all are",
    )
    freeze: Annotated[tuple[str, ...], BeforeValidator(_expressions)] = Field(
        (), description="likewise of those that are not trained; instead of `only`"
    )
    lora: LoraConfig | None = Field(
        None, description="train low-rank adapters, and leave the model's weights as they are; null: all weights"
    )
    seed: int = Field(1234, description="of the trainer's random states")

    @property
    def choice(self) -> Choice:
        """Which parameters are trained, adapters aside."""
        return Choice(self.only, self.freeze)


class PlacementConfig(Section):
    """Who runs where. Colocated: trainer ranks and engines share the devices, in turns."""

    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: cuda where there is a GPU")
    num_nodes: PositiveInt = Field(1, description="nodes of the run")
    trainers_per_node: PositiveInt = Field(1, description="trainer ranks per node: one per GPU")
    engines_per_node: PositiveInt = Field(1, description="SGLang servers per node")
    engine_tensor_parallel: PositiveInt = Field(1, description="GPUs of one engine, on all of its nodes together")
    engine_nodes: PositiveInt | None = Field(
        None,
        description="nodes that one engine is spread over, with the same share of its GPUs on each, so that "
        "engines_per_node counts shares; null: where engines are on the trainers' GPUs, and the trainers_per_node of a "
        "node are fewer than engine_tensor_parallel, the nodes that have those; else, and on CPUs, 1",
    )
    trainers: Literal["megatron", "none"] = Field(
        "megatron",
        description="none: nothing is trained: the ranks load no model, and engines have the one at model.path from "
        "their start. Then schedule is evaluate, and checkpoint.save_hf off, where they are left out",
    )
    engines: Literal["colocated", "own_gpus", "none"] = Field(
        "colocated",
        description="the engines of the trainers' nodes: colocated: on the trainers' GPUs, in turns; own_gpus: on GPUs "
        "beside them, so a node needs trainers_per_node + engines_per_node × engine_tensor_parallel of them (of an "
        "engine over several nodes its share); none, which is the default where rollout.generate is rows: "
        "there are no engines",
    )
    weight_sync: Literal["auto", "files"] = Field(
        "auto",
        description="how weights reach engines with GPUs of their own; auto: by broadcast, over NCCL or on CPUs gloo; "
        "files: through the run directory, which needs no more than a shared file system",
    )
    engine_weights: Literal["whole", "fp8"] = Field(
        "whole",
        description="what engines compute with: whole: the trainer's precision; fp8: their linear layers are in fp8, "
        "which every sync makes of the trainer's weights, in blocks of 128 × 128; on GPUs, with sizes that 128 divides",
    )
    check_sync: NonNegativeInt = Field(
        0,
        description="every n-th sync, from the first on, is proven: each tensor of an engine is compared, by checksum, "
        "with what the engine then loads from files of the weights; 0: never",
    )
    schedule: str = Field(
        "in_turns",
        description="the order of a step's phases: in_turns; evaluate: no step, one evaluation; replay: the updates of "
        "stored steps (`ebbtide replay`); profile: another one, of which a step is traced (`ebbtide profile`); or "
        "module.py:function / package.module:function of your own, called as f(parts: Parts) -> bool on every trainer "
        "rank",
    )
    schedule_options: dict[str, Any] = Field(default_factory=dict, description="its keyword arguments")
    tensor_parallel: PositiveInt = Field(1, description="trainer ranks that share each layer")
    pipeline_parallel: PositiveInt = Field(1, description="trainer ranks that hold consecutive layers")
    pipeline_first_layers: PositiveInt | None = Field(
        None, description="layers of the first pipeline stage; null: it is one of those that share the rest evenly"
    )
    pipeline_last_layers: PositiveInt | None = Field(
        None,
        description="layers of the last pipeline stage, likewise: where pipeline_parallel does not divide the layers, "
        "or to level out the memory of the stages",
    )
    expert_parallel: PositiveInt = Field(
        1, description="trainer ranks of a pipeline stage over which the experts of each layer are shared out"
    )
    context_parallel: PositiveInt = Field(
        1, description="trainer ranks that share out the tokens of each row, for long samples"
    )
    sequence_parallel: bool = Field(
        False, description="tensor-parallel ranks also share the sequence outside attention"
    )
    engine_memory_fraction: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.5, description="GPU: share of memory for the engine's weights and KV cache"
    )
    engine_max_total_tokens: PositiveInt | None = Field(
        None, description="KV cache size in tokens; null: the engine decides (CPU: 16384)"
    )
    offload: Annotated[Literal["auto", "on", "off"], BeforeValidator(_on_or_off)] = Field(
        "auto",
        description="trainers and engines of a node give memory back while the others work; auto: on GPUs that do "
        "not hold everything at once, and only what must leave. on: everything leaves. off: everything stays where it "
        "is, and must fit",
    )
    engine_options: dict[str, Any] = Field(
        default_factory=dict,
        description="further options of SGLang, under the names of its ServerArgs: schedule_policy, page_size, …",
    )
    engine_max_running_requests: PositiveInt | None = Field(
        None,
        description="samples that one engine makes at the same time; null: on a GPU its share of a step's, 64 to 256, "
        "and on a CPU 64",
    )
    start_timeout_s: PositiveFloat = Field(600.0, description="deadline for all processes to be up")
    collective_timeout_s: PositiveFloat = Field(
        1800.0, description="deadline of a control collective (gloo); a rollout may last this long"
    )
    silence_timeout_s: Annotated[float, Field(ge=5)] = Field(
        30.0, description="a node that is silent for this time counts as lost, and the attempt ends"
    )
    engine_restarts: NonNegativeInt = Field(3, description="how often a dead engine is restarted in one attempt")


class SetReward(Section):
    """How responses of an evaluation set are scored, in place of what the section `reward` says of it."""

    type: str = Field(description="as reward.type, but for python: name the function here")
    pattern: str | None = Field(None, description="regex: its first group is compared with the label")
    options: dict[str, Any] = Field(default_factory=dict, description="keyword arguments of what `type` names")
    key: str = Field("reward", description=KEY_OF_MAPPING)


class EvalSet(DataConfig):
    """An evaluation set: a data section of its own."""

    shuffle: bool = Field(False, description="off: an evaluation sees the rows in their order")
    interval: NonNegativeInt | None = Field(None, description="null: as in eval; so are the others below")
    n_samples_per_prompt: PositiveInt | None = Field(None, description="samples per prompt")
    temperature: NonNegativeFloat | None = Field(None, description="0: greedy")
    top_p: Annotated[float, Field(gt=0, le=1)] | None = Field(None, description="1: off")
    top_k: int | None = Field(None, description="-1: off")
    max_response_tokens: PositiveInt | None = Field(None, description="of a response of this set")
    majority: bool | None = Field(None, description="whether maj@k of this set is told")
    generate: str | None = Field(
        None,
        description="another generation than rollout.generate: one_turn, or a function of your own; null: the run's",
    )
    generate_options: dict[str, Any] = Field(default_factory=dict, description="its keyword arguments")
    reward: SetReward | None = Field(
        None, description="another reward than the run's, with the keys of eval.sets.NAME.reward; null: the run's"
    )


class EvalConfig(Section):
    """Evaluation before the first step, every `interval` steps, and after the last."""

    interval: NonNegativeInt = Field(0, description="steps between evaluations; 0: only before and after the run")
    skip_first: bool = Field(False, description="none before the first step")
    sets: dict[str, EvalSet] = Field(default_factory=dict, description="a name of your own for each, then its keys")
    n_samples_per_prompt: PositiveInt = Field(1, description="samples per prompt")
    temperature: NonNegativeFloat = Field(0.0, description="0: greedy")
    top_p: Annotated[float, Field(gt=0, le=1)] = Field(1.0, description="share of probability sampled from; 1: off")
    top_k: int = Field(-1, description="number of most probable tokens sampled from; -1: off")
    max_response_tokens: PositiveInt | None = Field(None, description="null: as in rollout")
    majority: bool = Field(
        False,
        description="also maj@k: how often the commonest answer of k samples is right; with a reward.type that looks "
        "for an answer: math, deepscaler, dapo, last_number or choice",
    )

    def interval_of(self, name: str) -> int:
        """Steps between evaluations of a set; 0: only at both ends."""
        one = self.sets.get(name)
        return self.interval if one is None or one.interval is None else one.interval

    def at_once(self) -> EvalConfig:
        """The section without intervals: every evaluation is of all sets."""
        sets = {name: one.model_copy(update={"interval": None}) for name, one in self.sets.items()}
        return self.model_copy(update={"interval": 0, "skip_first": False, "sets": sets})

    def sampling_of(self, name: str) -> EvalSet:
        """A set with everything that it does not say itself as the section says it.

        `max_response_tokens` stays None where neither says it: then it is that of rollout.
        """
        one = self.sets.get(name, EvalSet())
        keys = (
            *("interval", "n_samples_per_prompt", "temperature", "top_p", "top_k"),
            "max_response_tokens",
            "majority",
        )
        return one.model_copy(update={key: getattr(self, key) for key in keys if getattr(one, key) is None})


class CheckpointConfig(Section):
    """Times at which the run is saved. A last checkpoint is always written at the end."""

    interval: NonNegativeInt = Field(0, description="steps between checkpoints; 0: none by steps")
    every: Annotated[str | None, BeforeValidator(_auto_or_duration)] = Field(
        AUTO,
        description="time between checkpoints, beside `interval`: 90s, 30m, 2h; longer where steps would wait for them "
        "more than 5 % of the time, or files be written more than a quarter of it; auto: as short as that allows, so "
        "after every step where it is cheap; null: none "
        "by time",
    )
    asynchronous: Annotated[Literal["auto", "on", "off"], BeforeValidator(_on_or_off)] = Field(
        "auto",
        description="the run goes on while a checkpoint is written, from copies in host memory; auto: where that has "
        "room for them",
    )
    keep: PositiveInt = Field(2, description="how many to keep")
    save_hf: Annotated[str, BeforeValidator(_end_off_or_every)] = Field(
        "end",
        description="when the model is written as a HuggingFace directory too. end: after the last step, to hf/; "
        "`every N`: also with a checkpoint after every N steps, to hf_steps/, where all are kept; off: never "
        "(`ebbtide export` makes one of any checkpoint)",
    )

    @property
    def every_s(self) -> float | None:
        """Seconds between checkpoints that come by the clock, at least; None: none do."""
        return 0.0 if self.every == AUTO else seconds_of(self.every) if self.every else None

    @property
    def model_interval(self) -> int:
        """Steps between models that are written while the run goes on; 0: there are none."""
        return int(self.save_hf.removeprefix(EVERY)) if self.save_hf.startswith(EVERY) else 0

    @property
    def model_at_end(self) -> bool:
        """Whether the model is written after the last step."""
        return self.save_hf != "off"


class SinkConfig(Section):
    """A sink of metrics, with its options. Just its name: one without options."""

    name: str = Field(description="tensorboard, wandb, or module.py:Class / package.module:Class of your own")
    options: dict[str, Any] = Field(default_factory=dict, description="its keyword arguments")


class LoggingConfig(Section):
    """What is written beside the trajectory store."""

    sinks: tuple[Annotated[SinkConfig, BeforeValidator(_named)], ...] = Field(
        (SinkConfig(name="tensorboard"),),
        description="where metrics go: tensorboard, wandb, or module.py:Class of your own; an entry is a name, or a "
        "mapping with name and options",
        json_schema_extra={"default": ["tensorboard"]},
    )
    tensorboard: bool | None = Field(
        None, description="an older key: false: without the sink tensorboard; true: with it, whatever `sinks` says"
    )
    level: Literal["debug", "info", "warning"] = Field(
        "info", description="least level in the logs of trainer rank 0, node agents and reward servers"
    )
    show_samples: NonNegativeInt = Field(
        1, description="samples of each step that the log shows; sinks show this number of the best and of the worst"
    )


class SlurmComponent(Section):
    """One part of the job; every part has its own nodes."""

    role: Literal["trainers", "engines", "rewards"] = Field(
        description="trainers (with the colocated engines; always the first), engines on nodes of their own, or reward "
        "workers"
    )
    nodes: PositiveInt | None = Field(None, description="trainers: placement.num_nodes; others: 1 if left out")
    gpus_per_node: NonNegativeInt | None = Field(
        None,
        description="GPUs asked of Slurm; left out: the number that its processes use, 0 if placement.device is cpu",
    )
    cpus_per_task: PositiveInt | None = Field(None, description="cores per node (one task runs on each)")
    mem: str | None = Field(None, description="host memory per node, as Slurm spells it: 64G")
    partition: str | None = Field(None, description="left out: the site file's")
    constraint: str | None = Field(None, description="node features, as in sbatch --constraint")
    exclusive: bool = Field(False, description="whole nodes, shared with no other job")
    sbatch: dict[str, Annotated[str, BeforeValidator(_option_value)]] = Field(
        default_factory=dict, description="further long options of sbatch for this part: qos, reservation, …"
    )
    engines_per_node: PositiveInt | None = Field(None, description="engines: SGLang servers per node; 1 if left out")
    num_workers: PositiveInt | None = Field(
        None, description="rewards: scoring processes per node; reward.num_workers if left out"
    )


class SlurmConfig(Section):
    """The job on a cluster: read by `ebbtide submit`, `sbatch` and `sweep`; `ebbtide run` needs none of it."""

    time: Annotated[str | None, BeforeValidator(_minutes)] = Field(
        None,
        description="time limit of one attempt, as Slurm spells it: MM, MM:SS, HH:MM:SS, D-HH, D-HH:MM or D-HH:MM:SS; "
        "null: the site file's, else one hour",
    )
    signal_s: PositiveInt = Field(
        180, description="how long before the limit Slurm warns the run, which then saves and requeues itself"
    )
    components: tuple[SlurmComponent, ...] = Field(
        (), description="parts of a heterogeneous job; left out: one part, the trainers on placement.num_nodes nodes"
    )
    heterogeneous: bool = Field(
        True, description="false: one allocation with the same processes, for clusters without heterogeneous jobs"
    )
    max_timeouts: NonNegativeInt = Field(100, description="how often the run may requeue itself at the time limit")
    max_preemptions: NonNegativeInt = Field(1000, description="how often it may do so after a preemption")
    max_failures: NonNegativeInt = Field(
        3, description="how often it may do so without a node that failed or on which a process was killed"
    )
    chain: PositiveInt = Field(
        4, description="on a site that forbids requeue: how many jobs are submitted, each after the one before"
    )
    exclude: tuple[str, ...] = Field((), description="nodes not to be used")
    environment: dict[str, str] = Field(default_factory=dict, description="variables set in the job")


class RunConfig(Section):
    """A whole run file."""

    name: str = Field("run", description="used in the run directory's name")
    model: ModelConfig
    data: DataConfig
    rollout: RolloutConfig
    reward: RewardConfig = RewardConfig()
    algorithm: AlgorithmConfig = AlgorithmConfig()
    critic: CriticConfig = CriticConfig()
    train: TrainConfig
    placement: PlacementConfig = PlacementConfig()
    eval: EvalConfig = EvalConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    logging: LoggingConfig = LoggingConfig()
    slurm: SlurmConfig = SlurmConfig()
    runs_dir: Path = Field(Path("runs"), description="where run directories are made")
