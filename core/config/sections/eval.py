"""The section `eval` of a run file, and its evaluation sets."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from core.config.sections.data import DataConfig
from core.config.sections.reward import KEY_OF_MAPPING
from core.config.sections.section import NonNegativeFloat, NonNegativeInt, PositiveInt, Section


class SetReward(Section):
    """How responses of an evaluation set are scored, in place of what the section `reward` says of it."""

    type: str = Field(description="as reward.type, but for python: name the function here")
    pattern: str | None = Field(None, description="regex: its first group is compared with the label")
    options: dict[str, Any] = Field(default_factory=dict, description="keyword arguments of what `type` names")
    key: str = Field("reward", description=KEY_OF_MAPPING)


class EvalSet(DataConfig):
    """An evaluation set: a data section of its own."""

    shuffle: bool = Field(False, description="off: an evaluation sees the rows in their order")
    interval: NonNegativeInt | None = Field(None, description="null: as in eval; so are the others below")
    n_samples_per_prompt: PositiveInt | None = Field(None, description="samples per prompt")
    temperature: NonNegativeFloat | None = Field(None, description="0: greedy")
    top_p: Annotated[float, Field(gt=0, le=1)] | None = Field(None, description="1: off")
    top_k: int | None = Field(None, description="-1: off")
    max_response_tokens: PositiveInt | None = Field(None, description="of a response of this set")
    majority: bool | None = Field(None, description="whether maj@k of this set is told")
    generate: str | None = Field(
        None,
        description="another generation than rollout.generate: one_turn, or a function of your own; null: the run's",
    )
    generate_options: dict[str, Any] = Field(default_factory=dict, description="its keyword arguments")
    reward: SetReward | None = Field(
        None, description="another reward than the run's, with the keys of eval.sets.NAME.reward; null: the run's"
    )


class EvalConfig(Section):
    """Evaluation before the first step, every `interval` steps, and after the last."""

    interval: NonNegativeInt = Field(0, description="steps between evaluations; 0: only before and after the run")
    skip_first: bool = Field(False, description="none before the first step")
    sets: dict[str, EvalSet] = Field(default_factory=dict, description="a name of your own for each, then its keys")
    n_samples_per_prompt: PositiveInt = Field(1, description="samples per prompt")
    temperature: NonNegativeFloat = Field(0.0, description="0: greedy")
    top_p: Annotated[float, Field(gt=0, le=1)] = Field(1.0, description="share of probability sampled from; 1: off")
    top_k: int = Field(-1, description="number of most probable tokens sampled from; -1: off")
    max_response_tokens: PositiveInt | None = Field(None, description="null: as in rollout")
    majority: bool = Field(
        False,
        description="also maj@k: how often the commonest answer of k samples is right; with a reward.type that looks "
        "for an answer: math, deepscaler, dapo, last_number or choice",
    )

    def interval_of(self, name: str) -> int:
        """Steps between evaluations of a set; 0: only at both ends."""
        one = self.sets.get(name)
        return self.interval if one is None or one.interval is None else one.interval

    def at_once(self) -> EvalConfig:
        """The section without intervals: every evaluation is of all sets."""
        sets = {name: one.model_copy(update={"interval": None}) for name, one in self.sets.items()}
        return self.model_copy(update={"interval": 0, "skip_first": False, "sets": sets})

    def sampling_of(self, name: str) -> EvalSet:
        """A set with everything that it does not say itself as the section says it.

        `max_response_tokens` stays None where neither says it: then it is that of rollout.
        """
        one = self.sets.get(name, EvalSet())
        keys = (
            *("interval", "n_samples_per_prompt", "temperature", "top_p", "top_k"),
            "max_response_tokens",
            "majority",
        )
        return one.model_copy(update={key: getattr(self, key) for key in keys if getattr(one, key) is None})
