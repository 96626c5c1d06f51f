"""The policy: Megatron's GPT with its output layer on the predicting positions only.

Left out: transformer engine, interleaved pipeline stages.
Legend: T row tokens (per rank a part of them under sequence and context parallel), R targets (of a rank's tokens), H
hidden.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import torch
from megatron.core import parallel_state
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
from megatron.core.models.gpt.gpt_model import GPTModel
from megatron.core.packed_seq_params import PackedSeqParams
from megatron.core.tensor_parallel.mappings import gather_from_sequence_parallel_region
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.transformer_block import TransformerBlockSubmodules
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor
from torch.nn import functional

from core.config.sections.lora import LoraConfig
from core.megatron.attention.delta_net import DeltaNetLayer
from core.megatron.attention.gated import GatedAttention
from core.megatron.attention.latent import LatentSelfAttention
from core.megatron.attention.over_ranks import of_row
from core.megatron.attention.packed import RowAttention
from core.megatron.attention.plan import AttentionPlan
from core.megatron.layers.adapters import attach
from core.megatron.layers.experts import expert_layer, expert_settings
from core.megatron.layers.frozen import freeze
from core.megatron.layers.kept_on_host import HostInputs
from core.megatron.layers.made_again import LeanLayer, LeanRoutedLayer
from core.megatron.layers.mlp import GatedMLP
from core.megatron.layers.norm import CentredNorm, HeadsNorm, RMSNorm
from core.megatron.layers.post_norm import NormedAttention, NormedMLP
from core.megatron.layers.rotary import RowRotary
from core.megatron.layers.routed_layer import RoutedLayer
from core.megatron.layers.routers import FIXED
from core.megatron.layers.routing import RowRouting
from core.megatron.layers.vocab import target_log_probs
from core.megatron.rows.packing import Row
from core.megatron.rows.split import RowPart, split_row
from core.megatron.rows.to_device import to_device
from core.megatron.state import weight_gradients
from modelcfg import ModelShape
from modelcfg.chosen import ALL, Choice, frozen_names
from modelcfg.stages import ONE_STAGE, Stages


@dataclass
class RowParams(PackedSeqParams):  # type: ignore[misc]
    """What the layers need to know of a row; travels as an argument, through recompute and pipeline schedules too."""

    positions: Tensor = field(kw_only=True)  # [T]
    attention: AttentionPlan = field(kw_only=True)
    logit_index: Tensor = field(kw_only=True)  # [R]
    targets: Tensor = field(kw_only=True)  # [R]
    rotation: tuple[Tensor, Tensor] | None = None  # [T, d / 2] cosines and sines, once the model has made them
    own_targets: Tensor | None = None  # [R] which of the whole row's targets they are, where it is split over ranks
    num_targets: int = 0  # of the whole row then
    routing: RowRouting | None = None  # None: nothing is replayed or noted


@dataclass(frozen=True)
class ModelOptions:
    """How a model of some shape is split, held and run."""

    dtype: torch.dtype
    tensor_parallel: int = 1
    stages: Stages = ONE_STAGE
    expert_parallel: int = 1
    expert_tensor_parallel: int = 1
    context_parallel: int = 1
    sequence_parallel: bool = False
    recompute: Literal["none", "selective", "full"] = "none"
    recompute_layers: int | None = None
    inputs_on_host: bool = False  # of layers that are recomputed
    temperature: float = 1.0
    entropy_gradient: bool = False
    lora: LoraConfig | None = None
    seed: int = 0  # of adapters
    choice: Choice = ALL  # of parameters that are trained


class PolicyModel(GPTModel):  # type: ignore[misc]
    """GPTModel whose last stage returns ([R] log-probs, [R] entropies) instead of logits."""

    def __init__(self, config: Any, spec: Any, shape: ModelShape, options: ModelOptions) -> None:
        super().__init__(
            config,
            spec,
            vocab_size=padded_vocab_size(shape.vocab_size, options.tensor_parallel),
            max_sequence_length=shape.max_position_embeddings,
            pre_process=parallel_state.is_pipeline_first_stage(),
            post_process=parallel_state.is_pipeline_last_stage(),
            parallel_output=True,  # each rank keeps its vocabulary columns; a gathered output breaks backward
            share_embeddings_and_output_weights=shape.tied_embeddings,
            position_embedding_type="rope",
        )
        self.rotary_pos_emb = RowRotary(shape)
        self.shape, self.options = shape, options
        if options.inputs_on_host:
            layers = len(self.decoder.layers)
            HostInputs(self.decoder, min(layers, options.recompute_layers or layers))
        if self.post_process:
            # hidden states are gathered before rows are selected, so the layer itself must not gather again
            self.output_layer.sequence_parallel = False
            self.output_layer.allreduce_dgrad = options.tensor_parallel > 1
            if shape.tied_embeddings:  # Megatron would have to add zeros, for the embedding's own gradient comes later
                self.output_layer.gradient_accumulation_fusion = False

    def fixed_tensors(self) -> Iterator[tuple[str, Tensor]]:
        """What is loaded, saved and synced as weights are, but trained by no gradient."""
        return ((name, tensor) for name, tensor in self.named_buffers() if name.endswith(FIXED))

    def _postprocess(self, hidden_states: Tensor, *, packed_seq_params: RowParams, **_: Any) -> Any:
        if not self.post_process:
            return hidden_states
        if self.options.sequence_parallel:
            hidden_states = gather_from_sequence_parallel_region(hidden_states, tensor_parallel_output_grad=False)
        predicting = hidden_states.index_select(0, packed_seq_params.logit_index)  # [R, 1, H]
        predicted = self._predict(predicting, packed_seq_params)
        own, number = packed_seq_params.own_targets, packed_seq_params.num_targets
        return (
            predicted if own is None else tuple(one if one is None else of_row(one, own, number) for one in predicted)
        )

    def _predict(self, predicting: Tensor, params: RowParams) -> Any:
        tied = self.share_embeddings_and_output_weights
        weight = self.shared_embedding_or_output_weight() if tied else None
        logits, _bias = self.output_layer(predicting, weight=weight)
        return target_log_probs(
            logits.squeeze(1),
            params.targets,
            self.shape.vocab_size,
            self.pg_collection.tp,
            self.options.temperature,
            self.options.entropy_gradient,
        )


def build_model(shape: ModelShape, options: ModelOptions) -> PolicyModel:
    """This rank's stage and shards, weights not yet loaded, adapters as they begin.

    Collective: all ranks (tied embeddings over stages).
    """
    weight_gradients.install()
    config = transformer_config(shape, options)
    model = PolicyModel(config, block_spec(shape, options), shape, options)
    if options.lora is not None:
        attach(model, shape, options.lora, stage_layers(shape, options).start, options.seed)
    if not options.choice.everything:
        stage = parallel_state.get_pipeline_model_parallel_rank()
        freeze(model, frozen_names(shape, options.choice, options.stages, stage, options.expert_parallel))
    return model


def forward_row(model: Any, row: Row, device: str, noted: dict[int, Tensor] | None = None) -> Any:
    """What `model`, with or without its gradient buffers around it, makes of a row: see `PolicyModel`.

    Args:
        noted: takes the experts that were taken, by layer: see `RowRouting`. Not where ranks share a row's tokens.
    Collective: the ranks that hold the model together, and those that share the row's tokens.
    """
    ranks = parallel_state.get_context_parallel_world_size()
    if ranks > 1:
        multiple = parallel_state.get_tensor_model_parallel_world_size()
        part = split_row(row, parallel_state.get_context_parallel_rank(), ranks, multiple)
        return forward(model, to_device(part.tokens, device), part_params(part, device))
    return forward(model, to_device(row.tokens, device), row_params(row, device, noted))


def forward(model: Any, tokens: Tensor, params: RowParams) -> Any:
    """The pass of `forward_row`, for [T] tokens that are on the device."""
    return model(tokens[None], None, None, packed_seq_params=params)


def row_params(row: Row, device: str, noted: dict[int, Tensor] | None = None) -> RowParams:
    """The row as an argument for the layers, on the device."""
    replayed = None if row.routing is None else to_device(row.routing, device)
    counted = None if row.counted is None else replace(row.counted, samples=to_device(row.counted.samples, device))
    routing = None if replayed is None and noted is None else RowRouting(replayed, noted, counted)
    return _params(row, AttentionPlan(row.segments, device), device, routing=routing)


def part_params(part: RowPart, device: str) -> RowParams:
    """A context-parallel rank's part of a row as an argument for the layers, on the device."""
    attention, own_targets = AttentionPlan(part.pieces, device, part.num_keys), to_device(part.own_targets, device)
    return _params(part, attention, device, own_targets=own_targets, num_targets=part.num_targets)


def _params(row: Row | RowPart, attention: AttentionPlan, device: str, **others: Any) -> RowParams:
    """What a row and a part of one have in common, and the others."""
    return RowParams(
        qkv_format="sbhd",
        positions=to_device(row.positions, device),
        attention=attention,
        logit_index=to_device(row.logit_index, device),
        targets=to_device(row.targets, device),
        **others,
    )


def padded_vocab_size(vocab_size: int, tensor_parallel: int) -> int:
    """The vocabulary, rounded up so that every tensor-parallel rank has the same number of rows."""
    return -(-vocab_size // tensor_parallel) * tensor_parallel


def transformer_config(shape: ModelShape, options: ModelOptions) -> Any:
    """Megatron's configuration of the model.

    perform_initialization stays on although every weight is loaded: it marks the split parameters, without which the
    gradient norm silently leaves out the shards of ranks above 0. The initialisers themselves do nothing.
    """
    full = options.recompute == "full"
    return TransformerConfig(
        num_layers=shape.num_layers,
        hidden_size=shape.hidden_size,
        ffn_hidden_size=shape.dense_ffn_hidden_size or shape.ffn_hidden_size,
        num_attention_heads=shape.num_attention_heads,
        num_query_groups=shape.num_query_groups,
        kv_channels=shape.head_dim,
        normalization="RMSNorm",
        layernorm_epsilon=shape.norm_eps,
        qk_layernorm=shape.qk_norm,
        rotary_interleaved=shape.rotary_interleaved,
        attention_output_gate=shape.attention_gate,
        add_bias_linear=shape.biases,
        add_qkv_bias=shape.qkv_bias,
        gated_linear_unit=True,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        perform_initialization=True,
        init_method=_leave_as_is,
        output_layer_init_method=_leave_as_is,
        params_dtype=options.dtype,
        bf16=options.dtype == torch.bfloat16,
        tensor_model_parallel_size=options.tensor_parallel,
        context_parallel_size=options.context_parallel,
        pipeline_model_parallel_size=options.stages.number,
        num_layers_in_first_pipeline_stage=options.stages.first,
        num_layers_in_last_pipeline_stage=options.stages.last,
        pipeline_dtype=options.dtype,
        sequence_parallel=options.sequence_parallel and options.tensor_parallel > 1,
        variable_seq_lengths=True,  # rows differ in length, and stages tell each other
        **{
            "activation_func": functional.silu,
            **expert_settings(shape, options.expert_parallel, options.expert_tensor_parallel),
        },
        batch_p2p_comm=False,
        calculate_per_token_loss=True,  # losses are sums: no division by micro-batches or ranks anywhere
        recompute_granularity="full" if full else None,
        recompute_method=("uniform" if options.recompute_layers is None else "block") if full else None,
        recompute_num_layers=(options.recompute_layers or 1) if full else None,
        gradient_accumulation_fusion=True,
        **dict.fromkeys(_FUSIONS, False),
    )


# need transformer engine or apex
_FUSIONS = (
    "masked_softmax_fusion",
    "bias_activation_fusion",
    "bias_dropout_fusion",
    "apply_rope_fusion",
    "persist_layer_norm",
)


def _leave_as_is(weight: Tensor) -> Tensor:
    return weight


def stage_layers(shape: ModelShape, options: ModelOptions) -> range:
    """The layers of this stage; Megatron counts the same ones by its own configuration."""
    stage: int = parallel_state.get_pipeline_model_parallel_rank()
    return options.stages.layers(shape.num_layers)[stage]


def block_spec(shape: ModelShape, options: ModelOptions) -> Any:
    """The layers of this stage: Megatron's local spec with our norms, our attention and our feed-forwards."""
    lean = options.recompute == "selective"
    layers = [_layer_spec(shape, number, lean=lean) for number in stage_layers(shape, options)]
    return TransformerBlockSubmodules(layer_specs=layers, layer_norm=_norm(shape))


def _norm(shape: ModelShape) -> type[RMSNorm]:
    return CentredNorm if shape.centred_norms else RMSNorm


def _layer_spec(shape: ModelShape, number: int, *, lean: bool) -> Any:
    layer = get_gpt_layer_local_spec(qk_layernorm=shape.qk_norm, normalization="RMSNorm")
    parts, attention = layer.submodules, layer.submodules.self_attention.submodules
    parts.input_layernorm = parts.pre_mlp_layernorm = _norm(shape)
    attention.core_attention = partial(RowAttention, window=shape.window_of(number), sinks=shape.sinks)
    dense = NormedMLP if shape.post_norms else GatedMLP
    parts.mlp = expert_layer(shape) if shape.has_experts(number) else dense
    if shape.has_experts(number):
        layer.module = LeanRoutedLayer if lean else RoutedLayer
    elif lean:
        layer.module = LeanLayer
    if shape.latent is not None:
        settings = {"shape": shape, "latent": shape.latent}
        parts.self_attention = ModuleSpec(module=LatentSelfAttention, params=settings)
    if shape.post_norms:
        parts.self_attention.module = NormedAttention
    if shape.attention_gate:
        parts.self_attention.module = GatedAttention
    if shape.qk_norm:
        attention.q_layernorm = attention.k_layernorm = _norm(shape)
    if shape.qk_norm_whole:
        attention.q_layernorm = ModuleSpec(module=HeadsNorm, params={"heads": shape.num_attention_heads})
        attention.k_layernorm = ModuleSpec(module=HeadsNorm, params={"heads": shape.num_query_groups})
    if shape.delta is not None and shape.has_state(number):
        parts.self_attention = ModuleSpec(module=DeltaNetLayer, params={"shape": shape, "delta": shape.delta})
    return layer
