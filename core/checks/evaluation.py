"""Evaluation sets: data sections of their own, and how they are sampled."""

from __future__ import annotations

from collections.abc import Iterator

from common.mistake import Mistake
from core.checks.data import compared_by, data_section
from core.config.schema import RunConfig
from core.config.sections.eval import EvalConfig, EvalSet
from core.config.set_rewards import place_of, reward_of
from core.reward.votes import VOTES

KNOWN = ", ".join(VOTES)
SAMPLING = ("n_samples_per_prompt", "temperature", "top_p", "top_k")


def sets(config: RunConfig) -> Iterator[Mistake]:
    """Each set is there and has the keys that its reward needs."""
    for name, data in config.eval.sets.items():
        yield from data_section(f"eval.sets.{name}", data, compared_by(config, name))


def votes(config: RunConfig) -> Iterator[Mistake]:
    """A majority is over answers, which the reward has to look for, and over several of them."""
    told: dict[str, EvalSet] = {}  # by the place that asks for it
    asked: dict[tuple[str, str], str] = {}  # by place and the key of the reward: its type
    for name, one in config.eval.sets.items():
        settings = config.eval.sampling_of(name)
        if settings.majority:
            place = "eval" if one.majority is None else f"eval.sets.{name}"
            told[place] = settings
            asked[place, f"{place_of(config, name)}.type"] = reward_of(config, name).type
    for (place, key), kind in asked.items():
        if kind not in VOTES:
            found, wanted = f"true with {key} {kind}", f"a type that looks for an answer: {KNOWN}"
            yield Mistake(f"{place}.majority", None, found, wanted, "remove it, or choose such a reward.type")
    for place, settings in told.items():
        if settings.n_samples_per_prompt == 1:
            found, wanted = "true with 1 sample per prompt", "several samples, which vote"
            yield Mistake(f"{place}.majority", None, found, wanted, "raise n_samples_per_prompt, or remove it")


def sampling(config: RunConfig) -> Iterator[Mistake]:
    """Greedy samples of one prompt are all the same; an interval needs something to evaluate."""
    evaluation = config.eval
    yield from _sampled_so("eval", evaluation)
    for name, one in evaluation.sets.items():
        if any(getattr(one, key) is not None for key in SAMPLING):
            yield from _sampled_so(f"eval.sets.{name}", evaluation.sampling_of(name))
    if evaluation.interval > 0 and not evaluation.sets:
        remedy = "add a set under eval.sets, or remove interval"
        yield Mistake(
            "eval.interval", None, f"{evaluation.interval} without any eval.sets", "a set to evaluate", remedy
        )


def _sampled_so(place: str, settings: EvalConfig | EvalSet) -> Iterator[Mistake]:
    samples, temperature, top_k = settings.n_samples_per_prompt, settings.temperature, settings.top_k
    if (samples or 1) > 1 and temperature == 0:
        yield Mistake(
            f"{place}.n_samples_per_prompt",
            None,
            f"{samples} with temperature 0, which gives the same sample each time",
            "1 sample per prompt, or a temperature above 0",
            f"set n_samples_per_prompt to 1, or raise {place}.temperature",
        )
    if top_k is not None and top_k != -1 and top_k < 1:
        remedy = "leave it out to sample from all tokens"
        yield Mistake(f"{place}.top_k", None, str(top_k), "1 or more, or -1", remedy)
    for key, off in (("top_p", 1.0), ("top_k", -1)):
        found = getattr(settings, key)
        if temperature == 0 and found != off:
            wanted = "a temperature above 0 with it, because greedy samples have one token to choose from"
            yield Mistake(
                f"{place}.{key}",
                None,
                f"{found} with temperature 0",
                wanted,
                f"remove it, or raise {place}.temperature",
            )
