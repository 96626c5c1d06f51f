"""Runs that learn the rows' own answers: no engines, nothing sampled, nothing scored; and those keys in other runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from common.mistake import Mistake, show
from core.checks.said import said
from core.config.schema import RunConfig
from core.config.sections.eval import EvalConfig, EvalSet
from core.config.sections.placement import PlacementConfig
from core.config.sections.reward import RewardConfig
from core.config.sections.rollout import RolloutConfig
from core.config.sections.section import Section
from core.doors import ADVANTAGE, GENERATE, LOSS, ROWS

READ = {
    "rollout": (
        *("generate", "num_rollout", "num_epoch", "rollout_batch_size", "n_samples_per_prompt", "max_response_tokens"),
        *("rewritten_past", "seed"),
    ),
    "eval": ("interval", "skip_first", "sets"),
}
"""Keys of these sections that say something where the rows have the answers."""
UNREAD_OF_SETS = (*(key for key in EvalSet.model_fields if key in EvalConfig.model_fields), "reward")
"""Keys of an evaluation set that say nothing there, but for those that `eval` reads."""
OF_ENGINES = ("engines_per_node", "weight_sync", "check_sync", "offload")
PARTS = ("engines", "rewards")  # of a job, that have nothing to do
GIVEN = "the rows have the answers (rollout.generate: rows)"


def is_of_rows(config: RunConfig) -> bool:
    """Whether the rows have what the run learns."""
    return config.rollout.generate == ROWS


def rows_or_engines(config: RunConfig) -> Iterator[Mistake]:
    """There are engines unless rows have the answers; and what has no use for rewards is for rows alone."""
    generate, engines = config.rollout.generate, config.placement.engines
    if is_of_rows(config) != (engines == "none"):
        wanted = "none, as nothing is generated" if is_of_rows(config) else "engines, to make the samples"
        remedy = "remove it" if is_of_rows(config) else f"remove it, or set {GENERATE.key} to rows to learn the rows"
        yield Mistake("placement.engines", None, f"{engines} with {GENERATE.key} {generate}", wanted, remedy)
    if is_of_rows(config):
        return
    for door, name in ((LOSS, config.algorithm.loss), (ADVANTAGE, config.algorithm.advantage_estimator)):
        if said(door.place(name)).own.get("needs_reward", True) is False:
            found = f"{name} with {GENERATE.key} {generate}: whatever the model says would count as right"
            remedy = f"set {GENERATE.key} to rows to learn the rows' answers, or choose another"
            yield Mistake(door.key, None, found, "one that heeds the reward", remedy)


def nothing_is_sampled(config: RunConfig) -> Iterator[Mistake]:
    """Keys of sampling, scoring and engines say nothing where the rows have the answers."""
    if not is_of_rows(config):
        return
    rollout, samples = config.rollout, config.rollout.n_samples_per_prompt
    if samples != 1:
        yield Mistake("rollout.n_samples_per_prompt", None, f"{samples}, where {GIVEN}", "1, the row's", "remove it")
    if rollout.rewritten_past == "keep":
        wanted = "refuse or split, as there is nothing that the model said itself"
        yield Mistake("rollout.rewritten_past", None, "keep with rows", wanted, "set it to split")
    yield from _unread("rollout", rollout, RolloutConfig, READ["rollout"])
    yield from _unread("eval", config.eval, EvalConfig, READ["eval"])
    for name, one in config.eval.sets.items():
        read = [key for key in EvalSet.model_fields if key not in UNREAD_OF_SETS or key in READ["eval"]]
        yield from _unread(f"eval.sets.{name}", one, EvalSet, read)
    yield from _unread("reward", config.reward, RewardConfig, ())
    others = [key for key in PlacementConfig.model_fields if key not in OF_ENGINES and not key.startswith("engine_")]
    yield from _unread("placement", config.placement, PlacementConfig, [*others, "engines"])
    for index, component in enumerate(config.slurm.components):
        if component.role in PARTS:
            found = f"a part of {component.role}, where {GIVEN}"
            yield Mistake(f"slurm.components.{index}.role", None, found, "trainers alone", "remove the part")


def nothing_is_weighed(config: RunConfig) -> Iterator[Mistake]:
    """Advantages, ratios and corrections compare with a reward, or with the engine that sampled."""
    if not is_of_rows(config):
        return
    algorithm = config.algorithm
    for door, name in ((LOSS, algorithm.loss), (ADVANTAGE, algorithm.advantage_estimator)):
        if name in door.builtins and said(door.place(name)).own.get("needs_reward", True) is not False:
            fits = ", ".join(one for one in door.builtins if not said(door.place(one)).own.get("needs_reward", True))
            wanted = f"{fits}, or a function of your own, as {GIVEN} and nobody scores them"
            yield Mistake(door.key, None, name, wanted, "remove it")
    for key, off in (("importance", "none"), ("opsm_delta", None), ("old_logprobs", "trainer"), ("kl_coef", 0)):
        if (found := getattr(algorithm, key)) != off:
            wanted = "no comparison with an engine, as there is none"
            yield Mistake(f"algorithm.{key}", None, show(found), wanted, "remove it")


def _unread(key: str, section: Section, kind: type[Section], read: Any) -> Iterator[Mistake]:
    for name, field in kind.model_fields.items():
        found = getattr(section, name)
        if name not in read and found != field.get_default(call_default_factory=True):
            yield Mistake(f"{key}.{name}", None, f"{show(found)}, where {GIVEN}", "a key that is read", "remove it")
