"""The shape of a decoder: everything that decides its parameters and its forward pass, and no weights."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from modelcfg.families import families

Natural = Annotated[int, Field(ge=0)]
PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0)]


STEEPNESS = 1.702  # of the gate where an activation is clamped


class Frozen(BaseModel):
    """Immutable and hashable; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class RopeScaling(Frozen):
    """Slow waves are stretched (`rope_type: llama3`). Source: Llama 3.1."""

    factor: PositiveFloat
    low_freq_factor: PositiveFloat
    high_freq_factor: PositiveFloat
    original_max_position_embeddings: PositiveInt


class LinearScaling(Frozen):
    """All positions are divided (`rope_type: linear`)."""

    factor: PositiveFloat


class YarnScaling(Frozen):
    """Slow waves are stretched, and attention is sharpened (`rope_type: yarn`). Source: YaRN, arXiv:2309.00071.

    Waves that turn more than `beta_fast` times within the original context are kept, those that turn less than
    `beta_slow` times are stretched; `truncate`: the borders are whole numbers of channels. Turned channels are
    multiplied by `attention_factor`, and the logits of attention by `logit_factor`.
    """

    factor: PositiveFloat
    original_max_position_embeddings: PositiveInt
    beta_fast: PositiveFloat = 32.0
    beta_slow: PositiveFloat = 1.0
    truncate: bool = True
    attention_factor: PositiveFloat = 1.0
    logit_factor: PositiveFloat = 1.0


class LatentAttention(Frozen):
    """Attention whose keys and values are made of few numbers per token. Source: DeepSeek-V2, arXiv:2405.04434, 2.1.

    Keys without position and values come from `rank` numbers; the last `rotary_dim` channels of a head, which positions
    turn, are one and the same for the keys of all heads. Queries come from `query_rank` numbers, or, if that is 0, from
    the token itself. A head's values have `value_dim` channels.
    """

    rank: PositiveInt
    rotary_dim: PositiveInt
    value_dim: PositiveInt
    query_rank: Natural = 0


class DeltaNet(Frozen):
    """Layers with a state in the place of attention: gated delta nets. Source: arXiv:2412.06464.

    The state of a head is a matrix from keys, of `key_dim` channels, to values, of `value_dim`; `value_heads` /
    `key_heads` heads have one and the same key and query. Query, key and value are sums over a token and those before
    it, `taps` in all. Every layer whose number, from 1, is a multiple of `attention_every` has attention all the same.
    `by_head`: what is projected lies key head by key head, query, key, values and gates of one behind each other; else
    all queries come first, then all keys and all values, and gates have a projection of their own.
    """

    key_heads: PositiveInt
    value_heads: PositiveInt
    key_dim: PositiveInt
    value_dim: PositiveInt
    taps: PositiveInt = 4
    attention_every: PositiveInt = 4
    by_head: bool = True

    @property
    def repeat(self) -> int:
        """States of each key head."""
        return self.value_heads // self.key_heads

    @property
    def key_size(self) -> int:
        """Width of all heads' keys, and of their queries."""
        return self.key_heads * self.key_dim

    @property
    def value_size(self) -> int:
        """Width of all heads' values."""
        return self.value_heads * self.value_dim

    @property
    def mixed(self) -> tuple[int, int, int]:
        """Widths of all heads' queries, of their keys and of their values, which a token and those before it make."""
        return self.key_size, self.key_size, self.value_size

    @property
    def projections(self) -> dict[str, int]:
        """What is projected, as HuggingFace names it → its width: query, key, value and gate, strength and decay."""
        keys, values, heads = self.key_size, self.value_size, self.value_heads
        if self.by_head:
            return {"qkvz": 2 * (keys + values), "ba": 2 * heads}
        return {"qkv": sum(self.mixed), "z": values, "b": heads, "a": heads}


class Window(Frozen):
    """Attention that sees a token's last `size` tokens alone, itself among them.

    Every layer whose number, from 1, is a multiple of `whole_every` sees all of them.
    """

    size: PositiveInt
    whole_every: Annotated[int, Field(ge=2)] = 2


class SigmoidRouter(Frozen):
    """A router that gives each expert a score of its own. Source: DeepSeek-V3, arXiv:2412.19437, section 2.1.2.

    The experts of the best scores are chosen with a bias on them that no gradient changes; of `groups` groups of
    experts only the `groups_per_token` whose two best biased scores make the largest sum take part. The scores
    themselves, made to sum to `scale`, weigh the results.
    """

    groups: PositiveInt = 1
    groups_per_token: PositiveInt = 1
    scale: PositiveFloat = 1.0


class ModelShape(Frozen):
    """A decoder with RMSNorm, rotary positions, grouped-query attention and a SwiGLU feed-forward.

    `qkv_bias` is a bias on the query, key and value projections only; `qk_norm` an RMSNorm over each head of query and
    key, with `qk_norm_whole` over all heads of query, and all of key, at once. `max_position_embeddings` is the longest
    sequence the model was published for; no weight depends on it. `post_norms` are norms behind the attention and
    behind the feed-forward. `rotary_fraction` is the part of each head, from its start, that positions turn;
    `rotary_interleaved`: a channel is turned with its neighbour, else with the one half of that part further on. With
    `latent`, `head_dim` is that of queries and keys, position and all.
    With `num_experts` a layer has that number of feed-forwards of `ffn_hidden_size`, not one, and a router that sends a
    token to the `experts_per_token` most probable; their probabilities, made to sum to 1, weigh the results (or as
    `router` says). Beside them every token passes a feed-forward of `shared_ffn_hidden_size`, unless that is 0. The
    first `dense_layers` have no experts, but one feed-forward of `dense_ffn_hidden_size`.
    With `delta` most layers have a state, not attention. `attention_gate`: what comes of an attention head is
    multiplied, channel by channel, by sigmoids, whose arguments the query projection gives; `shared_gate`: the result
    of the feed-forward beside experts by one such number. `centred_norms`: weights of norms are what is added to 1.
    `sinks`: each head has a number that stands beside the logits of its attention and takes a share of it. With
    `biases` the output projection, the router and the experts have some, too. `clamp` is the largest gate and the
    largest number beside it, of either sign, of an activation that is gate * sigmoid(1.702 gate) * (number + 1).
    `carried_layers` are layers behind the last, for predicting several tokens: see `Family.carried`.
    """

    name: str
    architecture: str
    hub: str = ""
    num_layers: PositiveInt
    hidden_size: PositiveInt
    ffn_hidden_size: PositiveInt
    num_attention_heads: PositiveInt
    num_query_groups: PositiveInt
    head_dim: PositiveInt
    vocab_size: PositiveInt
    norm_eps: PositiveFloat
    rope_theta: PositiveFloat
    rope_scaling: RopeScaling | YarnScaling | LinearScaling | None = None
    tied_embeddings: bool
    qkv_bias: bool
    qk_norm: bool
    qk_norm_whole: bool = False
    post_norms: bool = False
    centred_norms: bool = False
    attention_gate: bool = False
    window: Window | None = None
    sinks: bool = False
    biases: bool = False
    clamp: PositiveFloat | None = None
    rotary_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    rotary_interleaved: bool = False
    max_position_embeddings: PositiveInt
    num_experts: Natural = 0
    experts_per_token: Natural = 0
    latent: LatentAttention | None = None
    delta: DeltaNet | None = None
    router: SigmoidRouter | None = None
    shared_ffn_hidden_size: Natural = 0
    shared_gate: bool = False
    dense_layers: Natural = 0
    dense_ffn_hidden_size: Natural = 0
    carried_layers: Natural = 0

    @field_validator("architecture")
    @classmethod
    def _is_a_family(cls, architecture: str) -> str:
        if architecture not in families():
            raise ValueError(f"no family {architecture}: wanted one of {', '.join(families())}")
        return architecture

    @model_validator(mode="after")
    def _groups_divide_heads(self) -> ModelShape:
        if self.num_attention_heads % self.num_query_groups:
            raise ValueError(
                f"{self.num_attention_heads} attention heads cannot be shared out over {self.num_query_groups} "
                "query groups: the number of groups must divide the number of heads"
            )
        return self

    @model_validator(mode="after")
    def _experts_suffice(self) -> ModelShape:
        if self.experts_per_token > self.num_experts or (self.num_experts and not self.experts_per_token):
            raise ValueError(
                f"{self.experts_per_token} experts per token of {self.num_experts} experts: wanted a number from 1 "
                "to the number of experts, or 0 of 0"
            )
        return self

    @model_validator(mode="after")
    def _latent_attention_has_no_other_parts(self) -> ModelShape:
        if self.latent is None:
            return self
        if self.num_query_groups != self.num_attention_heads or self.latent.rotary_dim >= self.head_dim:
            raise ValueError("latent attention: wanted a key for each head, and channels that positions do not turn")
        if self.qkv_bias or self.qk_norm or self.post_norms or self.rotary_fraction != 1:
            raise ValueError(
                "latent attention: wanted no biases, norms of heads, norms behind layers or partial rotary"
            )
        return self

    @model_validator(mode="after")
    def _states_have_keys(self) -> ModelShape:
        if self.delta is None:
            return self
        if self.delta.value_heads % self.delta.key_heads:
            raise ValueError(
                f"{self.delta.value_heads} value heads over {self.delta.key_heads} key heads of a delta net: wanted a "
                "number of value heads that the number of key heads divides"
            )
        if self.latent is not None or self.post_norms or self.qk_norm_whole:
            raise ValueError("a delta net: wanted no latent attention, norms behind layers or norms over all heads")
        return self

    @model_validator(mode="after")
    def _sinks_and_biases_are_of_plain_attention_and_experts(self) -> ModelShape:
        if not (self.window or self.sinks or self.biases or self.clamp):
            return self
        if self.latent is not None or self.delta is not None or self.attention_gate or self.post_norms:
            raise ValueError(
                "a window, sinks, biases or a clamp: wanted attention without states, gates or few numbers"
            )
        only_experts = self.num_experts and not (self.dense_layers or self.shared_ffn_hidden_size)
        if not only_experts or (self.biases and not self.qkv_bias):
            raise ValueError("a window, sinks, biases or a clamp: wanted experts alone in all layers, and qkv_bias")
        return self

    @model_validator(mode="after")
    def _norms_over_all_heads_are_on_one_rank(self) -> ModelShape:
        if self.qk_norm_whole and not (self.qk_norm and self.num_experts):
            raise ValueError(
                "qk_norm_whole: wanted qk_norm, and experts, whose layers tensor parallelism does not split: "
                "the norm needs all heads of a token"
            )
        return self

    @model_validator(mode="after")
    def _some_layers_have_experts(self) -> ModelShape:
        fewer = self.num_experts and self.dense_layers < self.num_layers
        if (self.dense_layers or self.shared_ffn_hidden_size or self.router) and not fewer:
            raise ValueError("no layer with experts: wanted fewer dense layers than layers, and experts in the others")
        if bool(self.dense_layers) != bool(self.dense_ffn_hidden_size):
            raise ValueError("dense_layers and dense_ffn_hidden_size go together: wanted both, or neither")
        return self

    @model_validator(mode="after")
    def _groups_share_the_experts(self) -> ModelShape:
        if self.router is None:
            return self
        groups, chosen = self.router.groups, self.router.groups_per_token
        size, rest = divmod(self.num_experts, groups)
        if rest or chosen > groups or chosen * size < self.experts_per_token or (groups > 1 and size < 2):
            raise ValueError(
                f"{chosen} of {groups} groups of the {self.num_experts} experts: wanted equal groups of two or more, "
                f"of which the chosen have {self.experts_per_token} experts"
            )
        return self

    def has_experts(self, layer: int) -> bool:
        """Whether a layer has experts, not one feed-forward."""
        return bool(self.num_experts) and layer >= self.dense_layers

    def has_state(self, layer: int) -> bool:
        """Whether a layer has a state, not attention."""
        return self.delta is not None and (layer + 1) % self.delta.attention_every != 0

    def window_of(self, layer: int) -> int | None:
        """Number of tokens that a token sees in a layer; None: all before it."""
        whole = self.window is None or (layer + 1) % self.window.whole_every == 0
        return None if whole or self.window is None else self.window.size

    @property
    def query_size(self) -> int:
        """Width of the query projection; not always `hidden_size` (Qwen3)."""
        return self.num_attention_heads * self.head_dim

    @property
    def key_value_size(self) -> int:
        """Width of the key projection, and of the value projection."""
        return self.num_query_groups * self.head_dim
