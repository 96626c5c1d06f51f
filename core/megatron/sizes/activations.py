"""Bytes that the forward pass of one packed row leaves on the device for the backward pass, from the shape alone.

What each layer keeps per token, in elements, on a GPU (the fused kernels of `fused`, FlashAttention):

    2 H            what the two norms read          2 H           what they give the projections
    Q + 2 KV       the projection of qkv            Q             queries ahead of their norm (Qwen3)
    Q + KV         queries and keys, turned         Q             the attention's output
    2 F            gate and up                      F             what the down projection reads
    2 H            what norms behind attention and feed-forward read, where there are any (GLM-4)

with experts, k of E per token and all used alike, 2 k F instead, the tokens' gate and up at each of them, 3 F of the
feed-forward of all tokens, where there is one, and what the router chose, all of a tensor-parallel rank's own tokens;
under expert parallelism k H more, the tokens that have come, and where experts are cut that for each of their ranks,
all of which have them. On a CPU k (H + 6 F), as the activation is made in steps.
In fp32 one number per norm and head. Beside
the layers: the final norm, the rows that are predicted, their logits (whose gradient is written over them) and the
gradient of the output layer's weight, which is what is there when memory is fullest. Layers that are recomputed keep
their input only; under selective recompute layers keep neither what norms give the projections nor what the down
projection reads. Context-parallel ranks keep the copies of keys and values that their tokens see: of a long segment,
which is cut into two chunks for each of C ranks, C + 1/2 for each token of a rank. Where adapters are trained, a layer
keeps their ranks more, the widest of what they add is there at a time, and no weight of the vocabulary has a gradient;
that less is kept for frozen weights is not counted.
A layer with a state keeps its projections, and the rest of it is computed again while it goes backward, some states at
a time: of each state and token 12 (d + v) + 5 C numbers in float32 then, d and v the widths of a key and a value (the
rule alone took 2,246 to 2,374 on an H200 with d and v of 128, where 8 (d + v) + 5 C are 2,368: `bench/states.py`;
4 (d + v) are reckoned for what is ahead of it and behind). Norms around 1 keep what they read in float32, and a gate
keeps what it multiplies. Where experts have biases, the router's weights of all experts are kept once more. What a CPU
keeps of all pairs of tokens where there are sinks is not counted.
Legend: T tokens and R targets of the row, of context-parallel ranks of a rank's part of it, H hidden, Q and KV query
and key width, F width of a feed-forward or expert, V vocabulary, C tokens that a state passes at a time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from common.units import FP32_BYTES
from modelcfg import DeltaNet, ModelShape

INT64_BYTES = 8
WORKSPACE_BYTES = 64 * 2**20  # of the matrix product library, once it has been used
CHUNK = 64  # tokens that a state passes at a time
HOST_CHUNK = 2**24  # bytes of host memory that a layer's input takes at a time
STATES_AT_ONCE = 2**19  # states of all tokens of a row that a layer computes at a time
MAX_WASTE = 1.5  # of the CPU's attention blocks: padded query-key pairs over a block's own largest segment's, at most
# flash: sequences behind a prefix, or short ones; whole: long ones, one dense call each; parts: pieces of these, two
# calls each; plain: on a CPU, or in fp32
Attention = Literal["flash", "whole", "parts", "plain"]


@dataclass(frozen=True)
class Pass:
    """How a model is split and run.

    Attributes:
        element_bytes: of an activation: 2 (bf16) or 4 (fp32).
        recomputed: layers of this stage that keep their input only.
        on_host: whether those inputs wait on the host. Two are on the device: at the logits the first, which the model
            holds, and the last, which stays; in a layer's backward pass its own, and the one that comes next.
        selective: whether the others make outputs of norms and activations again.
        in_flight: rows that have gone forward and not yet backward: more than one on the first of several stages.
        dense: layers of this stage without experts, which come first, of a model that has experts.
        with_state: layers of this stage that have a state, not attention.
        adapter_ranks: of all adapters of a layer, added up; 0: there are none.
        adapter_outputs: numbers of a token that the widest of a layer's adapters adds.
    """

    element_bytes: int
    tensor_parallel: int = 1
    sequence_parallel: bool = False
    num_layers: int = 1
    recomputed: int = 0
    on_host: bool = False
    selective: bool = False
    in_flight: int = 1
    is_first: bool = True
    is_last: bool = True
    attention: Attention = "flash"
    expert_parallel: int = 1
    expert_tensor_parallel: int = 1
    context_parallel: int = 1
    dense: int = 0
    with_state: int = 0
    adapter_ranks: int = 0
    adapter_outputs: int = 0

    @property
    def dispatches(self) -> bool:
        """Whether tokens leave their rank for experts."""
        return self.expert_parallel * self.expert_tensor_parallel > 1


def layer_bytes(shape: ModelShape, how: Pass, *, experts: bool | None = None, state: bool = False) -> int:
    """Bytes per token of a layer that is not recomputed; with experts or without, None: with those of the shape; with a
    state or with attention.
    """
    tp = how.tensor_parallel
    query, key = shape.query_size // tp, shape.key_value_size // tp
    experts = bool(shape.num_experts) if experts is None else experts
    ffn, router = _feed_forward(shape, how, experts=experts), _router_bytes(shape, how) // tp if experts else 0
    heads, groups = shape.num_attention_heads // tp, max(1, shape.num_query_groups // tp)
    if how.attention == "plain":
        copies = (query + 2 * key * max(1, _keys_seen(how))) * MAX_WASTE  # in padded blocks
        gathered = copies + 2 * query  # the output in two orders
        normed = 2 * (query + key) if shape.qk_norm else 0  # ahead of the norm's weight, and behind it
        normed += 4 * _row(shape, how) if shape.post_norms else 0  # what they read, and ahead of their weight
        rows = (4 if how.selective else 6) * _row(shape, how)
        if state and shape.delta is not None:
            return int((rows + _projections(shape.delta) // tp + ffn) * how.element_bytes) + router
        normed += _gated(shape, how, query)
        return int((rows + 2 * query + 2 * key + normed + gathered + ffn) * how.element_bytes) + router
    attention = 3 * query + 3 * key + (query if shape.qk_norm else 0)
    attention += {"whole": query + key, "parts": query}.get(how.attention, 0)  # outputs once more, and values
    if shape.latent is not None:  # queries, keys, values and outputs of one width, outputs as they are projected
        latent = shape.latent
        attention = 4 * query + shape.num_attention_heads // tp * latent.value_dim
        attention += (1 if how.selective else 2) * (latent.query_rank + latent.rank) + latent.rotary_dim
    attention += int(2 * _key_width(shape, how) * _keys_seen(how)) + _gated(shape, how, query)
    if state and shape.delta is not None:
        attention = _projections(shape.delta) // tp + _gated(shape, how, 0)
    elements = (2 if how.selective else 4) * _row(shape, how) + attention + ffn
    elements += 2 * _row(shape, how) if shape.post_norms else 0
    numbers = (4 if shape.post_norms else 2) + heads + (heads + groups if shape.qk_norm else 0)
    return elements * how.element_bytes + numbers * FP32_BYTES + router


def _projections(delta: DeltaNet) -> int:
    """Elements that a layer with a state keeps of one token: what is projected, and what is read from the state."""
    return 2 * (delta.key_size + delta.value_size + delta.value_heads) + delta.value_size


def _gated(shape: ModelShape, how: Pass, query: int) -> int:
    """Elements that gates and norms around 1 keep of one token more than a layer without them."""
    of_norms = 2 * (FP32_BYTES // how.element_bytes - 1) * _row(shape, how) if shape.centred_norms else 0
    of_query = (2 + 2 * FP32_BYTES // how.element_bytes) * query if shape.attention_gate else 0
    return of_norms + of_query + (_row(shape, how) if shape.shared_gate else 0)


def _state_work(shape: ModelShape, how: Pass, tokens: int) -> int:
    """Bytes of a row's states that are computed at a time, forward and backward."""
    if shape.delta is None:
        return 0
    widths = shape.delta.key_dim + shape.delta.value_dim
    states = min(shape.delta.value_heads // how.tensor_parallel, max(states_at_once(tokens), shape.delta.repeat))
    return tokens * states * (12 * widths + 5 * CHUNK) * FP32_BYTES


def states_at_once(tokens: int) -> int:
    """Number of states of each of a row's tokens that a layer computes at a time."""
    return max(1, STATES_AT_ONCE // max(1, tokens))


def _made_again(shape: ModelShape, how: Pass) -> int:
    """Bytes per token that a layer under selective recompute makes again while it goes backward."""
    whole, kinds = replace(how, selective=False), (None, False) if how.dense else (None,)
    return max(layer_bytes(shape, whole, experts=one) - layer_bytes(shape, how, experts=one) for one in kinds)


def _keys_seen(how: Pass) -> float:
    """Keys of all ranks that are copied for a rank's tokens, for each of them."""
    return how.context_parallel + 0.5 if how.context_parallel > 1 else 0


def _key_width(shape: ModelShape, how: Pass) -> int:
    """Elements of a token's keys, or of its values, as the attention has them."""
    return (shape.key_value_size if shape.latent is None else shape.query_size) // how.tensor_parallel


def _feed_forward(shape: ModelShape, how: Pass, *, experts: bool) -> int:
    """Elements that it keeps of one token."""
    times = (4 if how.attention == "plain" else 3) - how.selective
    if experts:
        shared = times * shape.shared_ffn_hidden_size
        arrived = how.expert_tensor_parallel * shape.hidden_size
        of_each = (arrived if how.dispatches else 0) + 2 * shape.ffn_hidden_size
        if how.attention == "plain":
            of_each = arrived + 6 * shape.ffn_hidden_size
        return (shared + shape.experts_per_token * of_each) // how.tensor_parallel
    return times * _dense_width(shape) // how.tensor_parallel


def _dense_width(shape: ModelShape) -> int:
    return shape.dense_ffn_hidden_size or shape.ffn_hidden_size


def _router_bytes(shape: ModelShape, how: Pass) -> int:
    """Bytes of one token.

    Without a dispatcher an index, two places and two probabilities per chosen expert. For one, a flag and a probability
    per expert; two indices and three probabilities per chosen one. A sigmoid router keeps the scores of all experts,
    and an index and three numbers more per chosen one.
    """
    scores = 0
    if shape.router is not None:
        scores = shape.num_experts * FP32_BYTES + shape.experts_per_token * (INT64_BYTES + 3 * FP32_BYTES)
    if shape.biases and how.attention != "plain":
        scores += shape.num_experts * how.element_bytes + shape.experts_per_token * INT64_BYTES
    if how.attention != "plain" and not how.dispatches:
        return scores + shape.experts_per_token * (INT64_BYTES + 3 * FP32_BYTES + how.element_bytes)
    each = 1 + how.element_bytes
    chosen = 2 * INT64_BYTES + FP32_BYTES + (1 + how.expert_tensor_parallel) * how.element_bytes
    return scores + shape.num_experts * each + shape.experts_per_token * chosen


def update_bytes(shape: ModelShape, how: Pass, tokens: int, targets: int) -> dict[str, int]:
    """What an update needs beside the flat buffers when memory is fullest: the activations, and the logits.

    Args:
        tokens: T, targets: R; of the largest row.
    """
    beside = how.adapter_ranks * how.element_bytes
    dense, other = (tokens * (layer_bytes(shape, how, experts=experts) + beside) for experts in (False, None))
    inputs = tokens * _row(shape, how) * how.element_bytes
    whole_dense = max(0, how.dense - how.recomputed)  # the first ones are recomputed
    stateful = tokens * (layer_bytes(shape, how, state=True) + beside) if how.with_state else 0
    whole_stateful = round((how.num_layers - how.recomputed) * how.with_state / how.num_layers)
    layers = whole_dense * dense + (how.num_layers - how.recomputed - whole_dense - whole_stateful) * other
    layers += whole_stateful * stateful
    kept_inputs = (min(how.recomputed, 2) if how.on_host else how.recomputed) * inputs
    kept = layers + kept_inputs
    rows = 0 if how.adapter_ranks else -(-shape.vocab_size // how.tensor_parallel)  # with a gradient
    weight = rows * shape.hidden_size * how.element_bytes
    predicted = targets * shape.hidden_size * how.element_bytes
    logits = targets * -(-shape.vocab_size // how.tensor_parallel) * how.element_bytes + weight + predicted
    last = tokens * shape.hidden_size * how.element_bytes + predicted  # what the final norm reads, and what is chosen
    at_logits = kept + (last + logits if how.is_last else 0)
    # later, while a layer is made again and goes backward: its own activations and their gradients
    tied = weight if shape.tied_embeddings and how.is_first and how.is_last else 0
    in_work = max(dense if how.dense else 0, other, stateful) if how.recomputed else layers
    added = 2 * tokens * how.adapter_outputs * how.element_bytes  # and its gradient
    work = max(tokens * _gradients(shape, how), _state_work(shape, how, tokens) if how.with_state else 0)
    again = tokens * _made_again(shape, how)
    in_layer = kept_inputs + in_work + again + work + added + tied
    at_embedding = (3 if tied else 2) * weight if how.is_first else 0
    peak = max(at_logits, in_layer, at_embedding)
    waiting = (how.in_flight - 1) * kept
    shown = min(logits, peak) if how.is_last else 0
    return {"activations": peak - shown + waiting + WORKSPACE_BYTES, "logits": shown}


def host_input_bytes(shape: ModelShape, how: Pass, tokens: int) -> int:
    """Bytes of host memory in which inputs of recomputed layers wait, in whole chunks."""
    if not how.on_host:
        return 0
    inputs = tokens * _row(shape, how) * how.element_bytes
    return how.in_flight * max(0, how.recomputed - 1) * -(-inputs // HOST_CHUNK) * HOST_CHUNK


def _row(shape: ModelShape, how: Pass) -> int:
    """Elements of one token between the layers; under sequence parallel the ranks share the tokens out."""
    return shape.hidden_size // how.tensor_parallel if how.sequence_parallel else shape.hidden_size


def _gradients(shape: ModelShape, how: Pass) -> int:
    """Bytes per token while a layer goes backward: through the feed-forward, or through the attention in fp32."""
    dense = 3 * _dense_width(shape) + 2 * shape.hidden_size
    arrived = how.expert_tensor_parallel * shape.hidden_size
    feed_forward = 3 * shape.ffn_hidden_size + 2 * arrived
    if shape.num_experts and how.attention == "plain":
        feed_forward *= shape.experts_per_token
    elif shape.num_experts:  # gate and up once more with the gated, or with what goes back to the tokens
        widest = 2 * shape.ffn_hidden_size + max(2 * shape.ffn_hidden_size, arrived)
        widest += arrived if how.expert_tensor_parallel > 1 else 0  # what has come back of all ranks of an expert
        feed_forward = shape.experts_per_token * widest + shape.hidden_size
    attention = 2 * (shape.query_size + 2 * shape.key_value_size) + 2 * shape.hidden_size
    attention += shape.query_size if how.attention == "parts" else 0  # of queries, by each part
    if how.context_parallel > 1:  # those of the copies, and of the keys of all ranks, before and after they are one
        copied = _key_width(shape, how) * how.tensor_parallel * (_keys_seen(how) + 2 * how.context_parallel)
        attention += 2 * int(copied)
    widest = max(feed_forward, attention, dense if how.dense else 0)
    return widest // how.tensor_parallel * how.element_bytes
