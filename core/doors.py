"""All doors: where a user's own code may stand in for a built-in, and the built-ins' names.

To add a built-in: one file, and one entry here. What each door wants is in docs/doors.md.
"""

from __future__ import annotations

from dataclasses import replace

from core.plugins import Door

# parsers of tool calls that SGLang has had for long, by its names; a worker says so where one is missing
SGLANG_FORMATS = (
    "deepseekv3",
    "deepseekv31",
    "glm45",
    "glm47",
    "gpt-oss",
    "hermes",
    "kimi_k2",
    "llama3",
    "mistral",
    "pythonic",
    "qwen25",
    "qwen3_coder",
    "step3",
)
KL = "kl"  # to the reference, where it is in the reward
VALUES = "values"  # what a critic expects: the last offer to advantages
ADVANTAGE = Door(
    key="algorithm.advantage_estimator",
    builtins={
        "grpo": "core.algorithm.advantages.grpo:Grpo",
        "dr_grpo": "core.algorithm.advantages.dr_grpo:DrGrpo",
        "rloo": "core.algorithm.advantages.rloo:Rloo",
        "reinforce_plus_plus": "core.algorithm.advantages.reinforce_plus_plus:ReinforcePlusPlus",
        "reinforce_plus_plus_baseline": (
            "core.algorithm.advantages.reinforce_plus_plus_baseline:ReinforcePlusPlusBaseline"
        ),
        "pass_at_k": "core.algorithm.advantages.pass_at_k:PassAtK",
        "gae": "core.algorithm.advantages.gae:Gae",
        "none": "core.algorithm.advantages.none:NoAdvantage",
    },
    arguments=("rewards", "groups", "valid"),
    options_key="algorithm.advantage_options",
    gives="[B], or B tensors [T]",
    offers=("lengths", "logprobs_engine", "loss_mask", KL, VALUES),
)
LOSS = Door(
    key="algorithm.loss",
    builtins={
        "clipped": "core.algorithm.losses.clipped:ClippedLoss",
        "gspo": "core.algorithm.losses.gspo:GspoLoss",
        "cispo": "core.algorithm.losses.cispo:CispoLoss",
        "sapo": "core.algorithm.losses.sapo:SapoLoss",
        "policy_gradient": "core.algorithm.losses.policy_gradient:PolicyGradientLoss",
        "distillation": "core.algorithm.losses.distillation:DistillationLoss",
        "sft": "core.algorithm.losses.sft:SftLoss",
    },
    arguments=("logprobs", "entropy", "inputs"),
    options_key="algorithm.loss_options",
    gives="(loss, metrics)",
)
ONE_TURN = "one_turn"  # runs in the driver, all other generation in worker processes
ROWS = "rows"  # the answers are in the rows: there is no engine
GENERATE = Door(
    key="rollout.generate",
    builtins={
        ONE_TURN: "core.rollout.generate:OneTurn",
        "dialogue": "core.rollout.dialogue:Dialogue",
        ROWS: "core.rollout.rows:given_answer",
    },
    arguments=("task", "engine"),
    options_key="rollout.generate_options",
    gives="Response or a list of Responses",
)
ENVIRONMENT = Door(
    key="rollout.environment",
    builtins={},
    methods=("reset", "step"),
    options_key="rollout.environment_options",
)
TOOL_FORMAT = Door(
    key="rollout.tool_format",
    builtins={
        "plain": "core.rollout.tool_formats:plain",
        **dict.fromkeys(SGLANG_FORMATS, "core.rollout.tool_formats:ByEngine"),
    },
    arguments=("text",),
    gives="a list of ToolCalls",
)
NO_FILTER = "none"
FILTER = Door(
    key="rollout.filter",
    builtins={
        NO_FILTER: "core.rollout.group_filter:everything",
        "nonzero_std": "core.rollout.group_filter:nonzero_std",
    },
    arguments=("group",),
    options_key="rollout.filter_options",
    gives="True: it may be trained; False or the reason: it is not",
)
SCHEDULE = Door(
    key="placement.schedule",
    builtins={
        "in_turns": "core.loop.in_turns:run",
        "evaluate": "core.loop.evaluate:Evaluate",
        "replay": "core.loop.replay:Replay",
        "profile": "core.loop.profile:Profile",
    },
    arguments=("parts",),
    options_key="placement.schedule_options",
    gives="bool: whether the run is complete",
)
PROGRAMS = "code"  # needs a sandbox
ADDRESS = "http"  # is asked over the network
REWARD = Door(
    key="reward.type",
    builtins={
        "math": "core.reward.math_equality:MathScorer",
        "reasoning_gym": "core.reward.gym:score_reasoning_gym",
        "exact": "core.reward.scorers:score_exact",
        "last_number": "core.reward.last_number:score_last_number",
        "regex": "core.reward.scorers:RegexScorer",
        "deepscaler": "core.reward.math_variants:DeepScaleR",
        "dapo": "core.reward.math_variants:Dapo",
        "f1": "core.reward.word_overlap:score_f1",
        "choice": "core.reward.choice:score_choice",
        PROGRAMS: "core.reward.code:CodeScorer",
        "random": "core.reward.chance:score_random",
        "environment": "core.reward.episode:score_episode",
        ADDRESS: "core.reward.http:HttpScorer",
    },
    arguments=("sample",),
    options_key="reward.options",
    gives="float",
)
REWARD_PATH = replace(REWARD, key="reward.path", builtins={})  # an older way to name a function of one's own
SINK = Door(
    key="logging.sinks",
    builtins={
        "tensorboard": "core.sinks.tensorboard:TensorBoard",
        "wandb": "core.sinks.weights_and_biases:WeightsAndBiases",
    },
    methods=("begin", "step", "evaluation", "end"),
    options_key="options",
    needs={"wandb": "wandb"},
)

DOORS: tuple[Door, ...] = (ADVANTAGE, LOSS, GENERATE, ENVIRONMENT, TOOL_FORMAT, FILTER, SCHEDULE)
"""Every door whose key takes one name, or null where there may be none; checks and docs go through them."""
