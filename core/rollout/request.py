"""What a step wants sampled, and what was made of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from core.reward import Score
from core.rollout.group_filter import Verdict
from core.rollout.task import Task
from core.samples import Prompt, Sample, SamplingParams

WAIT_TOKENS = 128  # of a response, about half a second of an H100: groups so short may wait for one another


@dataclass(frozen=True)
class Request:
    """What one step (or one evaluation) wants sampled. The same on every rank."""

    key: str  # unique within the attempt
    prompts: Sequence[Prompt]  # group g answers prompts[g]
    num_samples: int  # tasks per prompt; the built-in makes one sample of each
    sampling: Callable[[int, int], SamplingParams]  # (group, index) -> settings, its seed among them
    weight_version: str
    step: int = 0
    evaluation: str = ""  # name of the evaluation set; empty: training
    num_trained: int | None = None  # groups, of those drawn; None: none is left out
    more: Callable[[int], Sequence[Prompt]] = lambda _num_drawn: ()  # what is drawn next where too few pass the filter

    def tasks(self, group: int) -> list[Task]:
        """What is to be made for group `group`."""
        prompt = self.prompts[group]
        return [
            Task(
                prompt_tokens=prompt.tokens,
                prompt_text=prompt.text,
                row=prompt.row,
                label=prompt.label,
                metadata=prompt.metadata,
                sampling=self.sampling(group, index),
                group=group,
                index=index,
                step=self.step,
                evaluation=self.evaluation,
                messages=prompt.messages,
            )
            for index in range(self.num_samples)
        ]

    @property
    def is_short(self) -> bool:
        """Whether no response can be longer than WAIT_TOKENS."""
        return self.sampling(0, 0).max_response_tokens <= WAIT_TOKENS


@dataclass
class Generated:
    """What was made of a request: `samples` and `scores` by this rank's engines, all else alike on every rank."""

    prompts: list[Prompt] = field(default_factory=list)  # by group; grows where more are drawn
    samples: list[Sample] = field(default_factory=list)
    scores: list[Future[Score]] = field(default_factory=list)  # of each of them, under way
    num_trained: int | None = None  # as in the request
    step: int = 0  # likewise
    num_rounds: int = 0  # in which engines were asked
    scored: list[Sample] = field(default_factory=list)  # of all ranks, brought together so far
    verdicts: dict[int, Verdict] = field(default_factory=dict)  # of `rollout.filter`, by group

    @property
    def num_drawn(self) -> int:
        """Rows of the data that were used up."""
        return len(self.prompts)
