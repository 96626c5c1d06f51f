"""The section `train.lora` of a run file."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from common.mistake import Wrong
from core.config.sections.section import PositiveFloat, PositiveInt, Section


def _as_list(value: Any) -> Any:
    """A name alone stands for a list of it."""
    if value == []:
        raise Wrong("an empty list", "a layer or more", "leave the key out for all of them")
    return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value


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
