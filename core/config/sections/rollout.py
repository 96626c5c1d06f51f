"""The section `rollout` of a run file."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from core.config.sections.section import PositiveFloat, PositiveInt, Section


class RolloutConfig(Section):
    """How many samples a step makes, and how they are sampled."""

    num_rollout: PositiveInt = Field(description="steps of the loop")
    num_epoch: PositiveInt | None = Field(
        None,
        description="in place of num_rollout: epochs, which are steps once the rows of `data` have been counted",
    )
    rollout_batch_size: PositiveInt = Field(description="prompts (groups) per step")
    over_sampling_batch_size: PositiveInt | None = Field(
        None,
        description="groups drawn per step, for `filter` to choose from; null: rollout_batch_size",
    )
    filter: str = Field(
        "none",
        description="which groups drawn are trained; nonzero_std: the first whose rewards differ, and where these are "
        "too few the first others; or module.py:function / package.module:function of your own, called as f(group) -> "
        "True, False or the reason why not",
    )
    filter_options: dict[str, Any] = Field(default_factory=dict, description="its keyword arguments")
    filter_rounds: PositiveInt = Field(
        1,
        description="how often a step draws over_sampling_batch_size groups at most, if too few have passed `filter`",
    )
    carry_over_tokens: PositiveInt | None = Field(
        None,
        description="responses grow by this number of tokens at a time; once rollout_batch_size of the "
        "over_sampling_batch_size groups are complete the step ends, and the others go on in the next one. null: a "
        "step ends with its last response",
    )
    carry_over_steps: PositiveInt = Field(
        4, description="carry_over_tokens: a group is carried over this often at most; the last step waits for it"
    )
    mask_carried: bool = Field(
        False, description="carry_over_tokens: tokens that the weights of earlier steps made are not learnt from"
    )
    n_samples_per_prompt: PositiveInt = Field(
        8, description="samples per prompt (the group); 1 where `generate` is rows"
    )
    max_response_tokens: PositiveInt = Field(
        1024, description="a response that gets this long is cut off there; one of a row is left out if it is longer"
    )
    temperature: PositiveFloat = Field(1.0, description="of sampling; the log-probs of training use the same")
    top_p: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="1, which is off: the trainer computes log-probs over all tokens; see eval.top_p"
    )
    top_k: int = Field(-1, description="-1, which is off, for the same reason; see eval.top_k")
    stop_token_ids: tuple[int, ...] = Field((), description="beside the tokenizer's own end token")
    seed: int = Field(
        1234, description="sample i of group g at step s is sampled with a seed derived from (seed, s, g, i)"
    )
    deterministic: bool = Field(
        False,
        description="GPU engines heed the seeds and compute each sample independently of the others under way, at a "
        "cost in speed; off: they ignore the seeds, and a repeated step gets other samples. CPU engines are always so",
    )
    request_timeout_s: PositiveFloat = Field(1800.0, description="deadline of one generation request")
    generate: str = Field(
        "one_turn",
        description="how a prompt becomes a sample: one_turn; dialogue, which is the default where there are tools or "
        "an environment; rows: the row has the answer, which is to be learnt (sft.md), and other keys get other "
        "defaults; or module.py:function / package.module:function of your own: async f(task, engine) -> Response or a "
        "list of them",
    )
    generate_options: dict[str, Any] = Field(default_factory=dict, description="its keyword arguments")
    generate_timeout_s: PositiveFloat = Field(
        600.0, description="time limit for one sample of your own function, but for what it waits for the engine then"
    )
    generate_workers: PositiveInt | None = Field(
        None,
        description="processes of your own function per node; null: one for every 128 samples of a step, in up to a "
        "quarter of the cores",
    )
    environment: str | None = Field(
        None,
        description="dialogue: who answers the model: module.py:Class or package.module:Class, with reset and step",
    )
    environment_options: dict[str, Any] = Field(default_factory=dict, description="keyword arguments of the class")
    tools: tuple[str, ...] = Field(
        (),
        description="dialogue: what the model may call: typed functions, each module.py:name or package.module:name",
    )
    tool_format: str = Field(
        "plain",
        description='how the model writes a call: plain, which is <tool_call>{"name": ..., "arguments": {...}}'
        "</tool_call>; one of SGLang's parsers by its name, such as qwen25, llama3, glm45; or a function of your own",
    )
    max_turns: PositiveInt = Field(
        8, description="dialogue: turns of the model; an episode that is not over then is cut off"
    )
    call_timeout_s: PositiveFloat = Field(
        30.0, description="dialogue: time limit for one call of a tool, and for one step of the environment"
    )
    rewritten_past: Literal["refuse", "keep", "split"] = Field(
        "refuse",
        description="where the chat template writes the model's earlier turns otherwise than it said them: refuse; "
        "keep: as it said them; split: as the template wants, each such turn a training sample of its own. With "
        "`generate: rows` refuse or split, which makes each turn of a row a sample of its own",
    )

    @model_validator(mode="after")
    def _speaks_in_turns(self) -> Self:
        """Tools or an environment make a dialogue, where nothing else is asked for."""
        if (self.environment or self.tools) and "generate" not in self.model_fields_set:
            self.__dict__["generate"] = "dialogue"  # the section is frozen
            self.__pydantic_fields_set__.add("generate")
        return self

    @property
    def num_drawn(self) -> int:
        """Groups that a step draws at a time."""
        return self.over_sampling_batch_size or self.rollout_batch_size
