"""One trainer rank, from the run file: its parameters, its flat buffers, its largest row."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

from core.checks.needs import needs_reference, needs_values
from core.checks.parallel import num_trainers, replica_size
from core.config.layout import pipeline_stages
from core.config.schema import RunConfig
from core.config.sections.lora import LoraConfig
from core.doors import ONE_TURN
from core.megatron.sizes.activations import Attention, Pass, host_input_bytes, update_bytes
from core.megatron.sizes.buffers import (
    MERGED_AT_ONCE,
    Sharing,
    buffer_bytes,
    kept_parts,
    state_elements,
    with_critic,
)
from core.megatron.sizes.graphs import LEAST_TOKENS, SEGMENTS, Graphs, graph_bytes, most_tokens, padded_tokens
from core.megatron.sizes.streaming import staging_bytes, state_bytes
from core.processes.device import resolve_dtype
from modelcfg import ModelShape
from modelcfg.adapters import adapted_layers, adapter_parameters
from modelcfg.chosen import Choice, Chosen, chosen_parameters
from modelcfg.shards import rank_parameters, value_parameters
from modelcfg.stages import Stages

Split = tuple[int, Stages, int, int, int]  # tensor parallel, pipeline, stage, expert parallel, that of each expert
ELEMENT_BYTES = {"bfloat16": 2, "float32": 4}


class Streamed(NamedTuple):
    """Bytes of a state that streams: all of it, on the host; and what of it is on the device at a time."""

    host: int
    staging: int


class Learnt(NamedTuple):
    """What is trained of a model: some of its parameters, or adapters beside all of them."""

    choice: Choice
    lora: LoraConfig | None


class RowSize(NamedTuple):
    """Tokens of a packed row, and how many of them are predicted."""

    tokens: int
    targets: int


def element_bytes(config: RunConfig, device: str) -> int:
    """Bytes of a parameter on this device."""
    return ELEMENT_BYTES[resolve_dtype(config.model.dtype, device)]


def part_bytes(
    config: RunConfig, shape: ModelShape, device: str, stage: int = 0, dp_rank: int = 0, streamed: bool = False
) -> dict[str, int]:
    """Part -> bytes of the flat buffers of a rank on its device, exact to the byte."""
    learnt, sharing = _learnt(config), _sharing(config, shape, dp_rank)
    kl = needs_reference(config.algorithm) and learnt.lora is None  # the base of adapters is the reference, too
    split, size = _split(config, stage), element_bytes(config, device)
    policy = _buffer_bytes(shape, split, size, sharing, kl, streamed, learnt)
    if not needs_values(config.algorithm):
        return dict(policy)
    return with_critic(policy, _critic_bytes(shape, split, size, replace(sharing, tied=False)))


def streamed_bytes(config: RunConfig, shape: ModelShape, device: str, stage: int = 0, dp_rank: int = 0) -> Streamed:
    """A rank's masters and moments where they stay on the host, exact to the byte."""
    elements = _state_elements(shape, _split(config, stage), _sharing(config, shape, dp_rank), _learnt(config))
    has_masters = element_bytes(config, device) < ELEMENT_BYTES["float32"]
    return Streamed(state_bytes(elements, has_masters), staging_bytes(elements, has_masters))


def copied_parts(config: RunConfig, shape: ModelShape, device: str, streamed: bool = False) -> list[str]:
    """Parts that are copied to the host when they leave, those first whose staying saves most per byte.

    Of moments only the way out is waited for, of reference and base, which nothing changes, only the way back.
    """
    kept = kept_parts(element_bytes(config, device), _sharing(config, shape, 0), streamed)
    parts = ("masters", "parameters", "critic", "reference", "base", "moments")
    return [part for part in parts if part in kept]


def host_copy_bytes(
    config: RunConfig,
    shape: ModelShape,
    device: str,
    parts: Mapping[str, int],
    staying: Collection[str] = (),
    streamed: bool = False,
) -> int:
    """Host memory that takes in what leaves of a rank's parts while others have the device."""
    leaving = set(copied_parts(config, shape, device, streamed)) - set(staying)
    return sum(parts.get(part, 0) for part in leaving)


def num_communicators(config: RunConfig) -> int:
    """NCCL communicators of a rank, made by `core/megatron/parallel.py` or at their first use.

    Under expert parallelism: tokens travel in one group, how many there are in a second of the same ranks; a third has
    the experts' gradient norm, unless the distributed optimiser has it; a fourth the ranks with the same experts. Where
    experts are cut, tokens meet in one more, and how many there are is told without expert parallelism, too.
    """
    placement, shared_out = config.placement, config.train.use_distributed_optimizer
    tensor, pipeline = placement.tensor_parallel > 1, placement.pipeline_parallel > 1
    context = placement.context_parallel > 1
    data, all_ranks = num_trainers(placement) > replica_size(placement), num_trainers(placement) > 1
    apart, cut = placement.expert_parallel > 1, placement.expert_tensor_parallel > 1
    experts = placement.expert_parallel * placement.expert_tensor_parallel
    same_experts = num_trainers(placement) > placement.pipeline_parallel * experts
    of_experts = apart + cut + (apart or cut) + (apart and not shared_out) + (apart and (same_experts or shared_out))
    return (
        sum((tensor, pipeline, tensor or pipeline, context, data or shared_out, shared_out and all_ranks)) + of_experts
    )


def update_work(config: RunConfig, shape: ModelShape, device: str, stage: int = 0) -> dict[str, int]:
    """What an update takes beside the flat buffers, for the largest row that the samples can make."""
    row = rank_row(config)
    return update_bytes(shape, _pass(config, shape, device, stage), row.tokens, row.targets)


def waiting_bytes(config: RunConfig, shape: ModelShape, device: str, stage: int = 0) -> int:
    """Host memory of a rank in which inputs of recomputed layers wait, of policy and critic."""
    of_policy = host_input_bytes(shape, _pass(config, shape, device, stage), rank_row(config).tokens)
    return of_policy * (2 if needs_values(config.algorithm) else 1)


def merging_bytes(config: RunConfig) -> int:
    """What merging adapters takes in a sync, a piece of a weight at a time; the result is a bucket's."""
    return 0 if config.train.lora is None else MERGED_AT_ONCE * 2 * ELEMENT_BYTES["float32"]


def possible_graphs(config: RunConfig, shape: ModelShape, device: str) -> list[Graphs]:
    """Numbers of tokens up to which rows could be CUDA graphs, largest first; none where there are no graphs at all."""
    placement, train = config.placement, config.train
    split = max(placement.tensor_parallel, placement.pipeline_parallel, placement.context_parallel) > 1
    plain = split or train.recompute != "none" or element_bytes(config, device) != ELEMENT_BYTES["bfloat16"]
    plain = plain or train.lora is not None or not train.choice.everything
    varies = shape.num_experts > 0 or shape.delta is not None  # how many tokens each expert gets, how states run
    if not train.cuda_graphs or plain or varies or device != "cuda":
        return []
    largest = padded_tokens(largest_row(config).tokens, train.global_batch_size, min(SEGMENTS))
    tokens = min(most_tokens(shape), largest)
    return [Graphs(tokens >> i, tokens >> i == largest) for i in range((tokens // LEAST_TOKENS).bit_length())]


def graph_work(config: RunConfig, shape: ModelShape, device: str, graphs: Graphs) -> int:
    """What they keep."""
    how = replace(_pass(config, shape, device, stage=0), attention="flash")
    return graph_bytes(shape, how, graphs.most_tokens)


def largest_row(config: RunConfig) -> RowSize:
    """The largest row with the longest prompts and responses: the token budget, or all samples of an optimiser step."""
    samples, response = config.train.global_batch_size, config.rollout.max_response_tokens
    per_prompt = config.rollout.n_samples_per_prompt if config.train.share_prompts else 1
    prompts = -(-samples // per_prompt)
    everything = prompts * config.data.max_prompt_tokens + samples * response
    budget = config.train.max_tokens_per_micro_batch
    if config.rollout.generate != ONE_TURN:  # others may make several samples where it makes one
        return RowSize(budget, budget)
    tokens = min(budget, everything)
    return RowSize(tokens, min(tokens, samples * response))


def rank_row(config: RunConfig) -> RowSize:
    """What one rank computes of the largest row. Context-parallel ranks have a token more than others at most; all
    tokens of one may be predicting where others have prompts.
    """
    row, placement = largest_row(config), config.placement
    if placement.context_parallel == 1:
        return row
    tokens = -(-row.tokens // (placement.context_parallel * placement.tensor_parallel)) * placement.tensor_parallel
    return RowSize(tokens, min(tokens, row.targets))


def _split(config: RunConfig, stage: int) -> Split:
    placement = config.placement
    experts = placement.expert_parallel, placement.expert_tensor_parallel
    return placement.tensor_parallel, pipeline_stages(placement), stage, *experts


# A search for a layout asks for the same sizes many times, and with experts there are tens of thousands of parameters.
@lru_cache(maxsize=4096)
def _buffer_bytes(
    shape: ModelShape,
    split: Split,
    element_bytes: int,
    sharing: Sharing,
    kl: bool,
    streamed: bool,
    learnt: Learnt,
) -> Mapping[str, int]:
    trained, base = _parameters(shape, split, learnt)
    return buffer_bytes(trained, element_bytes, sharing, kl, streamed, base)


@lru_cache(maxsize=4096)
def _critic_bytes(shape: ModelShape, split: Split, element_bytes: int, sharing: Sharing) -> Mapping[str, int]:
    return buffer_bytes(value_parameters(shape, *split), element_bytes, sharing, kl=False)


@lru_cache(maxsize=4096)
def _state_elements(shape: ModelShape, split: Split, sharing: Sharing, learnt: Learnt) -> int:
    return state_elements(_parameters(shape, split, learnt).trained, sharing)


def _learnt(config: RunConfig) -> Learnt:
    return Learnt(config.train.choice, config.train.lora)


def _parameters(shape: ModelShape, split: Split, learnt: Learnt) -> Chosen:
    """Elements of each parameter of the rank; beside adapters, which are trained, all of the model's own are frozen."""
    tensor_parallel, stages, stage, *_ = split
    lora = learnt.lora
    if lora is None:
        return chosen_parameters(shape, learnt.choice, *split)
    adapters = adapter_parameters(shape, lora.rank, lora.targets, tensor_parallel, stages, stage)
    return Chosen(adapters, rank_parameters(shape, *split))


def _sharing(config: RunConfig, shape: ModelShape, dp_rank: int) -> Sharing:
    placement = config.placement
    return Sharing(
        distributed=config.train.use_distributed_optimizer,
        ranks=num_trainers(placement) // replica_size(placement),
        rank=dp_rank,
        expert_parallel=placement.expert_parallel,
        pipeline_parallel=placement.pipeline_parallel,
        tied=shape.tied_embeddings,
        tensor_parallel=placement.tensor_parallel,
        expert_tensor_parallel=placement.expert_tensor_parallel,
    )


def _pass(config: RunConfig, shape: ModelShape, device: str, stage: int) -> Pass:
    placement, train = config.placement, config.train
    own, size = pipeline_stages(placement).layers(shape.num_layers)[stage], element_bytes(config, device)
    layers = len(own)
    wanted = layers if train.recompute_layers is None else min(layers, train.recompute_layers)
    ranks, outputs = (0, 0) if train.lora is None else _adapter_sizes(shape, train.lora, placement.tensor_parallel)
    return Pass(
        element_bytes=size,
        tensor_parallel=placement.tensor_parallel,
        sequence_parallel=placement.sequence_parallel,
        num_layers=layers,
        recomputed=wanted if train.recompute == "full" else 0,
        on_host=train.recompute_inputs == "host",
        selective=train.recompute == "selective",
        in_flight=placement.pipeline_parallel - stage,
        is_first=stage == 0,
        is_last=stage == placement.pipeline_parallel - 1,
        attention=_attention(config, shape, device),
        expert_parallel=placement.expert_parallel,
        expert_tensor_parallel=placement.expert_tensor_parallel,
        context_parallel=placement.context_parallel,
        dense=max(0, min(layers, shape.dense_layers - own.start)),
        with_state=sum(map(shape.has_state, own)),
        adapter_ranks=ranks,
        adapter_outputs=outputs,
    )


def _attention(config: RunConfig, shape: ModelShape, device: str) -> Attention:
    if device != "cuda" or element_bytes(config, device) != ELEMENT_BYTES["bfloat16"]:
        return "plain"
    if shape.sinks or shape.window is not None:
        return "flash"
    return "whole" if config.placement.context_parallel == 1 else "parts"


@lru_cache(maxsize=256)
def _adapter_sizes(shape: ModelShape, lora: LoraConfig, tensor_parallel: int) -> tuple[int, int]:
    """Ranks of a layer's adapters, added up, and what the widest of Megatron's layers with some adds, per token."""
    ends = (0, shape.num_layers - 1)
    layers = [[x.on_rank(tensor_parallel) for x in adapted_layers(shape, number, lora.targets)] for number in ends]
    ranks = max(sum(len(one.chosen) for one in layer) * lora.rank for layer in layers)
    return ranks, max((sum(one.widths) * one.groups for layer in layers for one in layer), default=0)
