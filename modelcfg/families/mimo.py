"""MiMo-7B: the layers of Qwen2, and heads for several tokens, which are carried. Source: arXiv:2505.07608."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelcfg.families import qwen2
from modelcfg.family import Family

if TYPE_CHECKING:
    from modelcfg.shape import ModelShape


def _heads(_: ModelShape) -> tuple[str, ...]:
    return ("model.mtp_layers.",)


FAMILY = Family(
    "mimo",
    "MiMoForCausalLM",
    fields=qwen2.fields,
    refused=qwen2.refused,
    carried=_heads,
    no_attention_groups=qwen2.FAMILY.no_attention_groups,
)
