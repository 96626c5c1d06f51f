"""A reward tried on first rows before a run starts: in a scoring process of its own, as in the run."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from core.config.sections.data import DataConfig
from core.config.sections.reward import RewardConfig
from core.data import load_rows
from core.data.keys import value_at
from core.data.messages import messages_of
from core.reward.label import text_of
from core.reward.sample import RewardInput, Score
from core.reward.worker_process import WorkerProcess

LABEL, NOTHING = "the label", "an empty response"  # what is scored


class Answer(NamedTuple):
    """What the reward said of one response to the first row of `source` ("data", "eval.sets.NAME")."""

    source: str
    response: str
    score: Score
    took_s: float


class Trial(NamedTuple):
    """What came of it. `ready_s` is the time in which the process came up and made the reward."""

    ready_s: float
    answers: tuple[Answer, ...]

    def failed(self) -> list[Answer]:
        """One answer of each source for whose row there was no score at all."""
        scored = {one.source for one in self.answers if one.score.failure is None}
        failed = {one.source: one for one in self.answers if one.source not in scored}
        return list(failed.values())


def try_reward(config: RewardConfig, sources: Mapping[str, DataConfig], max_response_tokens: int) -> Trial:
    """Score two responses to the first row of each source: the label as text, and nothing.

    Raises:
        WorkerStartError: the reward cannot be made.
        Exception: whatever the function of a `python` source raises.
    """
    samples = [(name, *pair) for name, data in sources.items() for pair in _samples(name, data, max_response_tokens)]
    begun = time.monotonic()
    worker = WorkerProcess(config)
    try:
        worker.wait_ready()
        ready_s = time.monotonic() - begun
        return Trial(ready_s, tuple(_scores(worker, samples)))
    finally:
        worker.close()


def _scores(worker: WorkerProcess, samples: Sequence[tuple[str, str, RewardInput]]) -> list[Answer]:
    answers = []
    for source, response, sample in samples:
        if not worker.alive:  # killed at the time limit: one try is enough
            break
        begun = time.monotonic()
        score = worker.score(sample)
        answers.append(Answer(source, response, score, time.monotonic() - begun))
    return answers


def _samples(source: str, data: DataConfig, max_response_tokens: int) -> list[tuple[str, RewardInput]]:
    row = load_rows(data.model_copy(update={"size": 1}))[0]
    label = None if data.label_key is None else value_at(row, data.label_key)
    content = value_at(row, data.prompt_key)
    messages = messages_of(content) if data.apply_chat_template else []
    common: dict[str, Any] = {
        "prompt_text": "\n".join(message["content"] for message in messages) if messages else content,
        "label": label,
        "metadata": {key: value for key, value in row.items() if key not in (data.prompt_key, data.label_key)},
        "messages": messages,
        "max_response_tokens": max_response_tokens,
        "evaluation": source.removeprefix("eval.sets.") if source != "data" else "",
    }
    first = label[0] if isinstance(label, list | tuple) and label else label
    text = text_of(first) if isinstance(first, str | int | float) else ""
    responses = {LABEL: text, NOTHING: ""} if text else {NOTHING: ""}
    return [(what, RewardInput(response_text=response, **common)) for what, response in responses.items()]
