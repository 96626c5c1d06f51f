"""The groups of a step, over all ranks: which are to be asked for next, which are trained, which are carried over.

Every rank holds the same view and decides alike: by tokens, by scores and by the order in which groups were drawn,
never by time. Collective: every method that says so, by all trainer ranks in one order.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from core.processes.collective import gather_lists
from core.reward import RewardsUnavailable
from core.rollout.carried import Carried, carried_metrics, is_unfinished, older_spans, without
from core.rollout.group_filter import GroupFilter
from core.rollout.request import Generated, Request
from core.rollout.sample_bytes import gather_samples
from core.samples import Sample, Status

log = logging.getLogger(__name__)


class StepGroups:
    """Decides about groups; `core.rollout.rollout` has them answered."""

    def __init__(self, group_filter: GroupFilter | None = None) -> None:
        """Keep the filter.

        Args:
        group_filter: chooses groups, where a request asks for it; None: all are taken.
        """
        self._filter = None if group_filter is None or group_filter.takes_all else group_filter
        self._counts: dict[str, float] = {}

    def take_over(self, request: Request) -> Generated:
        """What is there of a request before anybody is asked, with the groups to ask for.

        What earlier steps have begun goes on; nobody is asked for what is complete. Collective: none.
        """
        groups, begun = range(len(request.prompts)), request.begun
        made = Generated(list(request.prompts), num_trained=request.num_trained, step=request.step)
        made.carry, made.weight_version = request.carry, request.weight_version
        made.origins = [request.origin_of(group) for group in groups]
        made.scored = [one for samples in begun.values() for one in samples if not is_unfinished(one)]
        made.begun = {
            group: left for group, samples in begun.items() if (left := [one for one in samples if is_unfinished(one)])
        }
        made.asked = [group for group in groups if group in made.begun or group not in begun]
        return made

    def missing(self, made: Generated) -> list[int]:
        """The groups asked for that no rank has an answer to. Collective."""
        done = set(gather_lists(sorted(made.answered)))
        return [group for group in made.asked if group not in done]

    def next_groups(self, request: Request, made: Generated) -> list[int]:
        """The groups to go on with: those that are not complete, or new ones; none where the step has enough.

        Collective, when all groups asked for have an answer.
        """
        _share_grown(made)
        if made.num_trained is None or (self._filter is not None and self._bring_together(made)):
            return []  # nobody scores: `settle` says so
        if self._num_ready(made) >= made.num_trained:
            return [group for group in sorted(made.begun) if _is_due(made, group)]
        if made.begun:
            return sorted(made.begun)
        return self._draw_more(request, made)

    def settle(self, made: Generated) -> list[Sample]:
        """Wait for the scores and bring all ranks' samples together, in order of group and index, on every rank.

        Of training samples only the groups that are trained; what the next step goes on with is `made.carried` then.

        Raises:
            TooManyFailures: on every rank, if a filter chooses, and too many samples have no reward.
            RewardsUnavailable: on every rank, if some rank's samples can be scored by nobody.
        Collective. Waits as long as the reward pool's own time limits allow.
        """
        if unavailable := self._bring_together(made):
            raise RewardsUnavailable(unavailable)
        samples = sorted(made.scored, key=_place)
        keeps_rest = made.carry is not None or made.num_carried_in > 0
        if made.num_trained is None or (self._filter is None and not keeps_rest):
            return samples
        chosen = self._choose(made, samples, made.num_trained)
        trained = [sample for sample in samples if sample.group in chosen]
        if keeps_rest:
            made.carried = self._left(made, samples, chosen)
            origins = [made.origins[group] for group in chosen]
            self._counts = carried_metrics(trained, origins, made.step, made.weight_version, len(made.carried))
            _mark_older(made, trained)
        return trained

    def take_counts(self) -> dict[str, float]:
        """Numbers of groups of the step that was settled last, under their metric names; once."""
        counts, self._counts = self._counts, {}
        return counts | (self._filter.take_counts() if self._filter is not None else {})

    def _draw_more(self, request: Request, made: Generated) -> list[int]:
        num_before = len(made.prompts)
        if self._filter is not None:
            made.prompts += request.more(num_before)
        new = list(range(num_before, len(made.prompts)))
        made.origins += [request.origin_of(group) for group in new]
        if new:
            log.info("rollout=%s groups=%d more=%d", request.key, num_before, len(new))
        return new

    def _num_ready(self, made: Generated) -> int:
        """Groups that are complete, and have passed the filter."""
        if self._filter is None:
            return len(made.prompts) - len(made.begun)
        return sum(not verdict.reason for verdict in made.verdicts.values())

    def _bring_together(self, made: Generated) -> str:
        """Every rank's samples, with their scores, on every rank, judged by the filter where their group is complete.

        Returns:
            why nobody scores; empty: it is done.
        """
        if unavailable := gather_lists(_take_scores(made)):
            return unavailable[0]
        made.scored += gather_samples(made.samples, made.prompts)
        made.samples, made.scores = [], []
        if self._filter is not None and made.num_trained is not None:
            known = made.begun.keys() | made.verdicts.keys()
            new = sorted((sample for sample in made.scored if sample.group not in known), key=_place)
            made.verdicts |= self._filter.verdicts(new, made.step)
        return ""

    def _choose(self, made: Generated, samples: Sequence[Sample], num_groups: int) -> set[int]:
        complete = [sample for sample in samples if sample.group not in made.begun]
        if self._filter is not None:
            return self._filter.choose(complete, made.verdicts, num_groups)
        return set(sorted({sample.group for sample in complete})[:num_groups])

    def _left(self, made: Generated, samples: Sequence[Sample], chosen: set[int]) -> tuple[Carried, ...]:
        """The groups that are neither trained nor rejected."""
        rejected = {group for group, verdict in made.verdicts.items() if verdict.reason}
        left = [group for group in range(len(made.prompts)) if group not in chosen | rejected]
        parts: dict[int, list[Sample]] = {group: list(made.begun.get(group, ())) for group in left}
        for sample in samples:
            if sample.group in parts:
                parts[sample.group].append(sample)
        return tuple(Carried(made.origins[group], tuple(sorted(parts[group], key=_place))) for group in left)


def _place(sample: Sample) -> tuple[int, int]:
    return sample.group, sample.index


def _share_grown(made: Generated) -> None:
    """Every rank learns how far the responses of all ranks have come that are not complete. Collective."""
    for group in made.asked:
        made.begun.pop(group, None)
    if made.carry is None:
        return
    for sample in sorted(gather_samples(made.grown, made.prompts), key=_place):
        made.begun.setdefault(sample.group, []).append(sample)
    made.grown = []


def _is_due(made: Generated, group: int) -> bool:
    """Whether a group may not be carried over once more."""
    return made.carry is None or made.step - made.origins[group].step >= made.carry.max_steps


def _mark_older(made: Generated, samples: Sequence[Sample]) -> None:
    """Tokens that the weights of earlier steps made do not count, or count as off-policy."""
    for sample in samples:
        older = older_spans(sample, made.weight_version) if made.origins[sample.group].step < made.step else []
        if older and made.carry is not None and made.carry.masks:
            sample.loss_mask = without(sample, older)
        elif older:
            sample.off_policy = True


def _take_scores(made: Generated) -> list[str]:
    """Wait for the scores and note them with their samples; why nobody scores, if nobody does."""
    for sample, future in zip(made.samples, made.scores, strict=True):
        try:
            score = future.result()
        except RewardsUnavailable as error:
            return [str(error)]
        sample.reward, sample.failure, sample.reward_parts = score.value, score.failure, score.parts
        if score.value is None:
            sample.status = Status.FAILED
    return []
