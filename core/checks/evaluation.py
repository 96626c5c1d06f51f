"""Evaluation sets: data sections of their own, and how they are sampled."""

from __future__ import annotations

from collections.abc import Iterator

from common.mistake import Mistake
from core.checks.data import compared_by, data_section
from core.config.schema import RunConfig


def sets(config: RunConfig) -> Iterator[Mistake]:
    """Each set is there and has the keys that the run's reward needs."""
    for name, data in config.eval.sets.items():
        yield from data_section(f"eval.sets.{name}", data, compared_by(config))


def sampling(config: RunConfig) -> Iterator[Mistake]:
    """Greedy samples of one prompt are all the same; an interval needs something to evaluate."""
    evaluation = config.eval
    if evaluation.n_samples_per_prompt > 1 and evaluation.temperature == 0:
        yield Mistake(
            "eval.n_samples_per_prompt",
            None,
            f"{evaluation.n_samples_per_prompt} with temperature 0, which gives the same sample each time",
            "1 sample per prompt, or a temperature above 0",
            "set n_samples_per_prompt to 1, or raise eval.temperature",
        )
    if evaluation.top_k != -1 and evaluation.top_k < 1:
        remedy = "leave it out to sample from all tokens"
        yield Mistake("eval.top_k", None, str(evaluation.top_k), "1 or more, or -1", remedy)
    for key, off in (("top_p", 1.0), ("top_k", -1)):
        found = getattr(evaluation, key)
        if evaluation.temperature == 0 and found != off:
            wanted = "a temperature above 0 with it, because greedy samples have one token to choose from"
            remedy = "remove it, or raise eval.temperature"
            yield Mistake(f"eval.{key}", None, f"{found} with temperature 0", wanted, remedy)
    if evaluation.interval > 0 and not evaluation.sets:
        remedy = "add a set under eval.sets, or remove interval"
        yield Mistake(
            "eval.interval", None, f"{evaluation.interval} without any eval.sets", "a set to evaluate", remedy
        )
