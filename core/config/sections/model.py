"""The section `model` of a run file."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from core.config.sections.section import Section


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
