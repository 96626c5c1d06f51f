"""What a step wants sampled, and what was made of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

from core.reward import Score
from core.rollout.carried import Carried, CarryOver, Origin
from core.rollout.group_filter import Verdict
from core.rollout.task import Task
from core.samples import Prompt, Sample, SamplingParams, Status

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
    more: Callable[[int], Sequence[Prompt]] = lambda _num_prompts: ()  # drawn next where too few pass the filter
    carry: CarryOver | None = None  # None: all responses are made at once
    begun: Mapping[int, Sequence[Sample]] = field(default_factory=dict)  # by group: samples of an earlier step
    origin: Callable[[int], Origin] | None = None  # group -> where it was drawn; None: here

    def tasks(self, group: int) -> list[Task]:
        """What is to be made for group `group`; of one that is begun what is not complete, from where it stands."""
        if group not in self.begun:
            return [self._grown(task, ()) for task in self._whole(group)]
        whole = self._whole(group)
        return [self._grown(whole[one.task], one.response_tokens) for one in self.begun[group]]

    def num_tasks(self, group: int) -> int:
        """Number of its `tasks`."""
        return len(self.begun[group]) if group in self.begun else self.num_samples

    def grows_on(self, sample: Sample) -> bool:
        """Whether a sample as the engine left it is not complete: it was only to grow so far."""
        most = self.sampling(sample.group, sample.task).max_response_tokens
        return self.carry is not None and sample.status is Status.TRUNCATED and len(sample.response_tokens) < most

    def _grown(self, task: Task, begun: Sequence[int]) -> Task:
        """The task from where its response stands, up to where it may grow now."""
        if self.carry is None and not begun:
            return task
        left = task.sampling.max_response_tokens - len(begun)
        sampling = replace(task.sampling, max_response_tokens=min(left, self.carry.tokens if self.carry else left))
        return replace(task, prompt_tokens=(*task.prompt_tokens, *begun), sampling=sampling)

    def _whole(self, group: int) -> list[Task]:
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
        longest = self.sampling(0, 0).max_response_tokens
        return min(longest, self.carry.tokens if self.carry else longest) <= WAIT_TOKENS

    def origin_of(self, group: int) -> Origin:
        """The place at which a group was drawn, if its request says so."""
        return Origin(0, self.step, group) if self.origin is None else self.origin(group)


@dataclass
class Generated:
    """What was made of a request: `samples` and `scores` by this rank's engines, all else alike on every rank."""

    prompts: list[Prompt] = field(default_factory=list)  # by group; grows where more are drawn
    samples: list[Sample] = field(default_factory=list)
    scores: list[Future[Score]] = field(default_factory=list)  # of each of them, under way
    num_trained: int | None = None  # as in the request
    step: int = 0  # likewise
    num_rounds: int = 0  # in which engines were asked
    asked: list[int] = field(default_factory=list)  # groups, since the ranks compared notes
    answered: set[int] = field(default_factory=set)  # of these, by this rank
    grown: list[Sample] = field(default_factory=list)  # that this rank has made since then, and that are not complete
    begun: dict[int, list[Sample]] = field(default_factory=dict)  # groups that are not complete: those of all ranks
    origins: list[Origin] = field(default_factory=list)  # of each group
    carry: CarryOver | None = None  # as in the request
    weight_version: str = ""  # likewise
    carried: tuple[Carried, ...] = ()  # groups that the next step goes on with, once the scores are settled
    scored: list[Sample] = field(default_factory=list)  # of all ranks, brought together so far
    verdicts: dict[int, Verdict] = field(default_factory=dict)  # of `rollout.filter`, by group

    @property
    def num_carried_in(self) -> int:
        """Groups that an earlier step has drawn."""
        return sum(one.step < self.step for one in self.origins)

    @property
    def num_drawn(self) -> int:
        """Rows of the data that were used up."""
        return len(self.prompts) - self.num_carried_in
