"""The section `algorithm` of a run file."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from core.config.sections.section import NonNegativeFloat, PositiveFloat, PositiveInt, Section


class AlgorithmConfig(Section):
    """Advantage and loss. Source: GRPO, arXiv:2402.03300; clip-higher: DAPO, arXiv:2503.14476."""

    advantage_estimator: str = Field(
        "grpo",
        description="a built-in (algorithms.md), or module.py:function / package.module:function of your own; none "
        "where rollout.generate is rows",
    )
    advantage_options: dict[str, Any] = Field(default_factory=dict, description="its keyword arguments")
    loss: str = Field(
        "clipped",
        description="a built-in (algorithms.md), or module.py:function / package.module:function of your own; sft "
        "where rollout.generate is rows",
    )
    loss_options: dict[str, Any] = Field(default_factory=dict, description="its keyword arguments")
    grpo_std_normalization: bool = Field(True, description="divide by the group's standard deviation (off: Dr. GRPO)")
    eps_clip: PositiveFloat = Field(0.2, description="the policy ratio is clipped below at 1 - eps_clip")
    eps_clip_high: PositiveFloat | None = Field(None, description="and above at 1 + this; null: equal to eps_clip")
    eps_clip_c: Annotated[float, Field(gt=1)] | None = Field(
        None,
        description="dual clip: a token of negative advantage A costs at most this times -A; null: no bound",
    )
    kl_loss_coef: NonNegativeFloat = Field(0.0, description="weight of the KL to the reference; 0: no reference model")
    kl_loss_type: Literal["k1", "k2", "k3", "low_var_kl"] = Field(
        "k3", description="estimator of the KL; low_var_kl: k3, at most 10"
    )
    kl_coef: NonNegativeFloat = Field(
        0.0,
        description="weight of the KL to the reference in the rewards of tokens, beside 0 in the loss; 0: it is not "
        "there",
    )
    ref_update_interval: PositiveInt | None = Field(
        None,
        description="the policy becomes its own reference each time it has learnt from this number of steps; null: the "
        "reference stays",
    )
    kl_unbiased: bool = Field(False, description="the KL times the policy's ratio to the old one")
    entropy_coef: NonNegativeFloat = Field(0.0, description="weight of the entropy bonus")
    loss_aggregation: Literal["token_mean", "sample_mean", "prompt_mean", "constant"] = Field(
        "token_mean",
        description="mean over all tokens of a global batch; over samples, or prompts, of the mean over their tokens; "
        "constant: over samples of the sum over their tokens / rollout.max_response_tokens (Dr. GRPO)",
    )
    old_logprobs: Literal["trainer", "engine"] = Field(
        "trainer",
        description="what the policy's ratio is over: log-probs of the trainer before its first optimiser step; or "
        "those that the engine gave with the sample, which saves a pass where a step has several optimiser steps",
    )
    routing_replay: Literal["none", "trainer", "engine"] = Field(
        "none",
        description="models with experts: trainer: the experts that the trainer's routers choose for a step's tokens "
        "before its first optimiser step are those of all its optimiser steps; engine: those that the engine chose, "
        "which are returned and stored with the samples, are those of all passes of the policy; none: the routers "
        "choose anew in each",
    )
    importance: Literal["none", "tis", "icepop", "sequence", "mis"] = Field(
        "none",
        description="weight of a token for what engine and trainer disagree about: the ratio of their probabilities of "
        "the token (tis, icepop) or of its response (sequence, mis), bounded (tis, sequence) or 0 beyond the bounds",
    )
    importance_low: NonNegativeFloat = Field(0.0, description="lower bound of this weight")
    importance_high: PositiveFloat = Field(2.0, description="upper bound of this weight")
    opsm_delta: PositiveFloat | None = Field(
        None,
        description="a response of negative advantage is masked where its mean log-prob has fallen by more than this "
        "since it was sampled; null: none is",
    )
