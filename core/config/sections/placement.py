"""The section `placement` of a run file."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from core.config.sections.section import AutoOnOff, NonNegativeInt, PositiveFloat, PositiveInt, Section


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
    engine_weights: Literal["whole", "fp8", "int8"] = Field(
        "whole",
        description="what engines compute with: whole: the trainer's precision; fp8: their linear layers are in fp8, "
        "which every sync makes of the trainer's weights, in blocks of 128 × 128; on GPUs, with sizes that 128 "
        "divides; int8: the same in int8, row by row; on A100s, too, with sizes that 16 divides",
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
    expert_tensor_parallel: PositiveInt = Field(
        1, description="tensor-parallel ranks that share each expert; 1: experts are whole on their rank"
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
    offload: AutoOnOff = Field(
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
