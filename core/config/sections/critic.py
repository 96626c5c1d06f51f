"""The section `critic` of a run file."""

from __future__ import annotations

from pydantic import Field

from core.config.sections.section import NonNegativeInt, PositiveFloat, Section


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
