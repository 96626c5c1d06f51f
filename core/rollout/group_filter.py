"""Which of a step's groups are trained, where more are drawn than trained: `rollout.filter`.

Every rank has all samples and chooses alike: by what the filter says of each group and by the order in which groups
were drawn, never by which were done first. So a repeated step trains the same groups.
Source: dynamic sampling of DAPO, arXiv:2503.14476, section 3.2. Differs: groups are drawn `rollout.filter_rounds` times
at most; what is lacking then is taken from the rejected ones.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import NamedTuple, Self

from core.algorithm.batch import TooManyFailures, check_failures
from core.config.sections.rollout import RolloutConfig
from core.doors import FILTER, NO_FILTER
from core.processes.collective import broadcast
from core.reward.sample import ScoredSample
from core.rollout.filter_process import FilterProcess
from core.samples import Sample, Status

FAILED = "failed"
ZERO_STD = "zero_std"
MAX_REASONS, OTHERS = 16, "others"  # of one filter, as each is a metric

log = logging.getLogger(__name__)


class Verdict(NamedTuple):
    """What a filter says of a group.

    Attributes:
        reason: why it is rejected; empty: it passed.
        failure: why there is no answer.
    """

    reason: str = ""
    failure: str = ""


def everything(_group: Sequence[ScoredSample]) -> bool:
    """Every group passes."""
    return True


def nonzero_std(group: Sequence[ScoredSample]) -> bool | str:
    """A group passes whose rewards differ: where all are alike nothing can be learnt."""
    if len({one.reward for one in group if one.reward is not None}) > 1:
        return True
    return FAILED if any(one.reward is None for one in group) else ZERO_STD


class GroupFilter:
    """Keeps a fixed number of groups of each step, and counts the others by reason.

    A context manager: a function of the user's own runs in a process beside trainer rank 0, which tells the others.
    """

    def __init__(
        self, config: RolloutConfig, *, max_failed_share: float, timeout_s: float, first_rank: bool = True
    ) -> None:
        """Keep what to filter by.

        Args:
        max_failed_share: of the samples of all groups drawn, that may be without a reward; of the groups, without an
            answer of the filter.
        timeout_s: for the answer to one group.
        first_rank: whether this is trainer rank 0.
        """
        self._name = config.filter
        self._max_response_tokens = config.max_response_tokens
        self._max_failed_share = max_failed_share
        self._own = FilterProcess(config, timeout_s) if config.filter not in FILTER.builtins else None
        self._builtin = None if self._own else FILTER.build(config.filter, config.filter_options)
        self._first_rank = first_rank
        self._reasons: set[str] = {ZERO_STD, FAILED} if config.filter == "nonzero_std" else set()
        self._counts: dict[str, float] = {}

    def __enter__(self) -> Self:
        """Start the process of a user's own function.

        Raises:
            WorkerStartError: it cannot be loaded.
        """
        if self._own is not None and self._first_rank:
            self._own.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._own is not None:
            self._own.close()

    @property
    def takes_all(self) -> bool:
        """Whether nothing is filtered."""
        return self._name == NO_FILTER

    def verdicts(self, samples: Sequence[Sample], step: int) -> dict[int, Verdict]:
        """What the filter says of each group that these samples are of.

        Collective: all trainer ranks, with the same samples, if the filter is a user's own. Waits `timeout_s` for each
            group at most.
        """
        groups = {group: self._scored(members, step) for group, members in by_group(samples).items()}
        if self._builtin is not None:
            return {group: _read(self._builtin(members)) for group, members in groups.items()}
        answers = broadcast([self._ask(members) for members in groups.values()] if self._first_rank else [])
        return {
            group: Verdict(_slug(reason), failure) for group, (reason, failure) in zip(groups, answers, strict=True)
        }

    def _scored(self, members: Sequence[Sample], step: int) -> list[ScoredSample]:
        return [
            ScoredSample(
                prompt_text=sample.prompt.text,
                response_text=sample.response_text,
                label=sample.prompt.label,
                metadata=sample.prompt.metadata,
                messages=sample.prompt.messages,
                num_prompt_tokens=len(sample.prompt.tokens),
                num_response_tokens=len(sample.response_tokens),
                max_response_tokens=self._max_response_tokens,
                truncated=sample.status is Status.TRUNCATED,
                row=sample.prompt.row,
                group=sample.group,
                index=sample.index,
                step=step,
                reward=sample.reward,
                failure=sample.failure,
                reward_parts=sample.reward_parts,
            )
            for sample in members
        ]

    def _ask(self, group: Sequence[ScoredSample]) -> list[str]:
        assert self._own is not None, "built-ins are called in place"
        return list(self._own.ask(group))

    def choose(self, samples: list[Sample], verdicts: Mapping[int, Verdict], num_groups: int) -> set[int]:
        """The groups to be trained; the others are counted.

        Args:
            samples: of all groups drawn, scored, by group.
            verdicts: of each group.
            num_groups: to be trained.
        Raises:
            TooManyFailures: among all samples drawn, as those of rejected groups would not be seen later; or the filter
                has no answer to too many groups.
        """
        check_failures(samples, self._max_failed_share)
        _check_answers(verdicts, self._max_failed_share)
        chosen = first_to_pass(verdicts, groups_with_failures(samples), num_groups)
        for reason in sorted({verdict.reason for verdict in verdicts.values()} - self._reasons - {""}):
            self._reasons.add(reason if len(self._reasons) < MAX_REASONS else OTHERS)
        self._counts = filter_metrics(verdicts, chosen, self._reasons)
        log.info("filter=%s %s", self._name, " ".join(f"{key}={value:.0f}" for key, value in self._counts.items()))
        return chosen

    def take_counts(self) -> dict[str, float]:
        """Numbers of groups of the step that was filtered last, under their metric names; once."""
        counts, self._counts = self._counts, {}
        return counts


def by_group(samples: Sequence[Sample]) -> dict[int, list[Sample]]:
    """The samples of each group."""
    groups: dict[int, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(sample.group, []).append(sample)
    return groups


def groups_with_failures(samples: Sequence[Sample]) -> set[int]:
    """The groups of which a sample has no reward."""
    return {sample.group for sample in samples if sample.failed}


def first_to_pass(verdicts: Mapping[int, Verdict], with_failures: set[int], num_groups: int) -> set[int]:
    """The groups to be trained: the first that passed, and where they are too few the first rejected ones.

    Args:
        with_failures: these come last among the rejected.
    """
    passed = sorted(group for group, verdict in verdicts.items() if not verdict.reason)
    rejected = sorted(verdicts.keys() - set(passed), key=lambda group: (group in with_failures, group))
    return set([*passed, *rejected][:num_groups])


def filter_metrics(verdicts: Mapping[int, Verdict], chosen: set[int], reasons: set[str]) -> dict[str, float]:
    """Numbers of groups: drawn, passed, rejected by reason, rejected but trained, and passed but not needed.

    Args:
        reasons: that have been given so far, in this run.
    """
    said = {group: verdict.reason for group, verdict in verdicts.items()}
    counts = Counter(reason if reason in reasons else OTHERS for reason in said.values() if reason)
    return {
        "rollout/filter/drawn": float(len(said)),
        "rollout/filter/passed": float(sum(not reason for reason in said.values())),
        **{f"rollout/filter/rejected/{reason}": float(counts[reason]) for reason in sorted(reasons, reverse=True)},
        "rollout/filter/rejected_but_trained": float(sum(bool(said[group]) for group in chosen)),
        "rollout/filter/surplus": float(sum(not why for group, why in said.items() if group not in chosen)),
    }


def _check_answers(verdicts: Mapping[int, Verdict], max_failed_share: float) -> None:
    reasons = Counter(verdict.failure for verdict in verdicts.values() if verdict.failure)
    num_failed = sum(reasons.values())
    if not num_failed or num_failed / len(verdicts) <= max_failed_share:
        return
    commonest = "; ".join(f"{count}x {reason}" for reason, count in reasons.most_common(3))
    raise TooManyFailures(
        f"rollout.filter has no answer to {num_failed} of {len(verdicts)} groups ({num_failed / len(verdicts):.0%}), "
        f"more than reward.max_failed_share = {max_failed_share:.0%}: {commonest}. Mend the filter (or raise the "
        "share), then resume: nothing before this step is lost."
    )


def _read(answer: bool | str) -> Verdict:
    return Verdict("") if answer is True else Verdict(str(answer))


def _slug(reason: str) -> str:
    """A reason as the last part of a metric's name."""
    return re.sub(r"[^a-z0-9]+", "_", reason.lower()).strip("_")[:40]
