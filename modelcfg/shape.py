"""The shape of a decoder: everything that decides its parameters and its forward pass, and no weights."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from modelcfg.families import families

Natural = Annotated[int, Field(ge=0)]
PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0)]


class Frozen(BaseModel):
    """Immutable and hashable; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class RopeScaling(Frozen):
    """The `llama3` frequency scaling, the only kind supported. Source: Llama 3.1 (`rope_type: llama3`)."""

    factor: PositiveFloat
    low_freq_factor: PositiveFloat
    high_freq_factor: PositiveFloat
    original_max_position_embeddings: PositiveInt


class ModelShape(Frozen):
    """A decoder with RMSNorm, rotary positions, grouped-query attention and a SwiGLU feed-forward.

    `qkv_bias` is a bias on the query, key and value projections only; `qk_norm` an RMSNorm over each head of query and
    key. `max_position_embeddings` is the longest sequence the model was published for; no weight depends on it.
    `post_norms` are norms behind the attention and behind the feed-forward. `rotary_fraction` is the part of each head,
    from its start, that positions turn; `rotary_interleaved`: a channel is turned with its neighbour, else with the one
    half of that part further on.
    With `num_experts` every layer has that number of feed-forwards of `ffn_hidden_size`, not one, and a router that
    sends a token to the `experts_per_token` most probable; their probabilities, made to sum to 1, weigh the results.
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
    rope_scaling: RopeScaling | None = None
    tied_embeddings: bool
    qkv_bias: bool
    qk_norm: bool
    post_norms: bool = False
    rotary_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    rotary_interleaved: bool = False
    max_position_embeddings: PositiveInt
    num_experts: Natural = 0
    experts_per_token: Natural = 0

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

    @property
    def query_size(self) -> int:
        """Width of the query projection; not always `hidden_size` (Qwen3)."""
        return self.num_attention_heads * self.head_dim

    @property
    def key_value_size(self) -> int:
        """Width of the key projection, and of the value projection."""
        return self.num_query_groups * self.head_dim
