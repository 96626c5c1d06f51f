"""A run in a sentence, and what a reader should look at. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean, stdev

from launchers.attempts.history import REWARD, Attempt
from launchers.report.run_facts import RunFacts
from launchers.report.words import time_words

ENDS = 0.1  # share of the steps whose mean is the reward at the beginning, and at the end
MOST_CAUSE = 300
TRUNCATED, ZERO_SPREAD, FAILED_SHARE = "rollout/truncated_ratio", "rollout/zero_std/count", "rollout/failed_ratio"
GAP = "train/train_rollout_logprob_abs_diff"
MANY_TRUNCATED, MANY_ALIKE, WIDE_GAP = 0.2, 0.5, 0.1


def verdict(run: RunFacts) -> str:
    """How the run ended or how far it is, and what it learnt: two sentences at most."""
    return " ".join(part for part in (_state(run), _learnt(run)) if part)


def state_word(run: RunFacts) -> str:
    """One word for a badge: complete, running, failed, …"""
    last = run.history.last
    if last is None:
        return "not started"
    if last.how is None:
        return "running" if run.alive or last.job is not None else "lost"
    return {"timeout": "paused", "preempted": "paused", "node_failure": "failed"}.get(last.how, last.how)


def things_to_look_at(run: RunFacts) -> list[str]:
    """What the last steps show that a reader may have missed, one sentence each."""
    last = [run.metrics[step] for step in _ends(sorted(run.metrics))[1]]
    found = []
    if (share := _mean(last, TRUNCATED)) is not None and share > MANY_TRUNCATED:
        limit = run.settings.get("rollout.max_response_tokens")
        found.append(f"{share:.0%} of the last responses were cut off at rollout.max_response_tokens = {limit}.")
    groups = run.settings.get("rollout.rollout_batch_size")
    alike = _mean(last, ZERO_SPREAD)
    if alike is not None and isinstance(groups, int) and groups > 0 and alike / groups > MANY_ALIKE:
        found.append(f"In {alike / groups:.0%} of the last groups all samples had the same reward: they teach nothing.")
    if (share := _mean(last, FAILED_SHARE)) is not None and share > 0:
        found.append(f"{share:.1%} of the last samples have no reward; the samples below say why.")
    if (gap := _mean(last, GAP)) is not None and gap > WIDE_GAP:
        found.append(f"Engine and trainer disagree by {gap:.2f} nats per token on average.")
    return found


def _state(run: RunFacts) -> str:
    last, advance = run.history.last, run.history.advance
    done = f"{advance.steps_done} of {advance.num_steps} steps" if advance.num_steps else "no step"
    if last is None:
        return "Not started yet: the ledger has no attempt."
    if last.how is None:
        return _open(run, last, done)
    number = len(run.history.attempts)
    took = f"{'one attempt' if number == 1 else f'{number} attempts'}, {_worked(run.history.attempts)} in all"
    match last.how:
        case "complete":
            return f"Complete: all {advance.num_steps or advance.steps_done} steps are done ({took})."
        case "timeout" | "preempted":
            return f"Saved at the {'time limit' if last.how == 'timeout' else 'preemption'}: {done} done ({took})."
        case "interrupted":
            return f"Stopped by somebody: {done} done ({took})."
    cause = (last.cause or "").partition("\n")[0][:MOST_CAUSE].rstrip(".")
    return f"Attempt {last.number} {_how(last)} with {done} done{f': {cause}' if cause else ''}."


def _open(run: RunFacts, last: Attempt, done: str) -> str:
    if run.alive:
        return f"Under way: {done} done{f', now in {phase}' if (phase := run.history.advance.phase) else ''}."
    if last.job is not None:
        return f"Under way by its ledger, in job {last.job}: {done} done; `ebbtide status` asks Slurm."
    return f"Lost, or under way on {last.host or 'another machine'}: {done} done, and nothing wrote how it ended."


def _how(last: Attempt) -> str:
    return {"failed": "failed", "node_failure": "lost a node", "lost": "was lost"}.get(last.how or "", f"{last.how}")


def _learnt(run: RunFacts) -> str:
    changes = [change for change in (_reward(run), *_rates(run)) if change]
    return f"{changes[0][:1].upper()}{'; '.join(changes)[1:]}." if changes else ""


def _reward(run: RunFacts) -> str:
    rewards = {step: metrics[REWARD] for step, metrics in run.metrics.items() if REWARD in metrics}
    if len(rewards) < 2:
        return ""
    first, last = ([rewards[step] for step in steps] for steps in _ends(sorted(rewards)))
    between = [rewards[step] for step in sorted(rewards)]
    return _change("reward", fmean(first), fmean(last), _noise(between) / len(first) ** 0.5)


def _rates(run: RunFacts) -> list[str]:
    """Accuracy of each set, or its loss, at the first and the last evaluation."""
    steps = sorted(run.evaluations)
    if len(steps) < 2:
        return []
    first, last = run.evaluations[steps[0]], run.evaluations[steps[-1]]
    return [
        f"{rate} of {name} {first[name][rate]:.2f}\u00a0→\u00a0{rates[rate]:.2f}"
        for name, rates in last.items()
        for rate in ("accuracy", "loss")
        if rate in rates and rate in first.get(name, {})
    ]


def _change(what: str, first: float, last: float, noise: float) -> str:
    if abs(last - first) <= 2 * noise:
        return f"{what} stayed at about {last:.3g}"
    return f"{what} {'rose' if last > first else 'fell'} from {first:.3g} to {last:.3g}"


def _noise(values: Sequence[float]) -> float:
    """Standard deviation from step to step, the slow change of a curve aside; 0 where there is too little to tell."""
    if len(values) < 4:
        return 0.0
    return stdev(b - a for a, b in pairwise(values)) / 2**0.5


def _ends(steps: Sequence[int]) -> tuple[Sequence[int], Sequence[int]]:
    """The first and the last tenth, one step at least."""
    number = max(1, round(len(steps) * ENDS))
    return steps[:number], steps[-number:]


def _mean(metrics: Sequence[dict[str, float]], name: str) -> float | None:
    values = [one[name] for one in metrics if name in one]
    return fmean(values) if values else None


def _worked(attempts: Sequence[Attempt]) -> str:
    return time_words(sum(attempt.ended - attempt.began for attempt in attempts if attempt.ended and attempt.began))
