"""The rollout of a run without engines: what a step learns from stands in the rows.

Every rank has all rows, so nothing is sent between them, and nothing is scored.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import Future
from typing import cast

from core.doors import GENERATE, ROWS
from core.rollout.generate import Answer
from core.rollout.request import Generated, Request
from core.rollout.rollout import Pending
from core.samples import Demonstration, Prompt, Sample, Status

Generate = Callable[[Demonstration, None], Answer]


def given_answer(task: Demonstration, _engine: None) -> Answer:
    """What the row answers; its log-probs are not known, as no model said it."""
    return Answer(
        task=0,
        tokens=list(task.response_tokens),
        logprobs=[math.nan] * len(task.response_tokens),
        status=Status.GIVEN,
        weight_version="",
        loss_mask=list(task.loss_mask),
        turns=task.turns,
    )


class RowRollout:
    """Stands in `Parts` where `Rollout` does. Collective: none, though all ranks call it alike."""

    def __init__(self) -> None:
        self._generate: Generate = GENERATE.build(ROWS)

    def generate(self, request: Request) -> Generated:
        """The sample of every row."""
        return self.start(request).finish()

    def start(self, request: Request) -> Pending:
        """The same; there is nothing to wait for."""
        samples = [self._sample(group, prompt) for group, prompt in enumerate(request.prompts)]
        done: Future[None] = Future()
        done.set_result(None)
        return Pending(done, lambda _version: Generated(list(request.prompts), samples))

    def settle(self, made: Generated) -> list[Sample]:
        """The samples, one per group, in order."""
        return made.samples

    def _sample(self, group: int, prompt: Prompt) -> Sample:
        row = cast(Demonstration, prompt)  # what `core.data.demonstrations` makes of every row
        answer = self._generate(row, None)
        return Sample(
            group=group,
            index=0,
            prompt=row,
            response_tokens=answer.tokens,
            logprobs_engine=answer.logprobs,
            status=answer.status,
            weight_version=answer.weight_version,
            response_text=row.response_text,
            loss_mask=answer.loss_mask,
            turns=answer.turns,
        )
