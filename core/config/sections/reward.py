"""The section `reward` of a run file."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from core.config.sections.section import PositiveFloat, PositiveInt, Section, Share

KEY_OF_MAPPING = "of a reward that is a mapping of numbers: the one that counts; all are logged and stored"


class RewardConfig(Section):
    """How a response is scored."""

    type: str = Field(
        "exact",
        description="how a response is compared with the label: math, deepscaler, dapo, reasoning_gym, exact, "
        "last_number, regex, choice, f1, code; random: by chance; environment: the sum of what its steps gave; http: "
        "what an address answers; or module.py:function / package.module:function of your own, called as "
        "f(sample: RewardInput) -> float; python: an older way to say that it is the function at `path`",
    )
    pattern: str | None = Field(None, description="regex: its first group is compared with the label")
    path: str | None = Field(None, description="with type python: the function, as `type` may name it itself")
    options: dict[str, Any] = Field(default_factory=dict, description="keyword arguments of what `type` names")
    key: str = Field("reward", description=KEY_OF_MAPPING)
    overlong_buffer_tokens: PositiveInt | None = Field(
        None,
        description="DAPO's penalty on long responses of training: nothing up to this number of tokens below "
        "rollout.max_response_tokens, then linear; null: none",
    )
    overlong_penalty: PositiveFloat = Field(1.0, description="what it takes off a response at the limit")
    timeout_s: PositiveFloat = Field(10.0, description="time limit per sample")
    num_workers: PositiveInt = Field(1, description="scoring processes per node")
    max_failed_share: Share = Field(
        0.1, description="share of a step's samples that may fail to be scored before the run stops"
    )
