"""Curves of one or several runs, from what they logged. Pure: values and words, no drawing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from launchers.attempts.history import REWARD, STEP_TIME
from launchers.report.run_facts import RunFacts
from launchers.report.verdict import FAILED_SHARE, GAP, TRUNCATED, ZERO_SPREAD

MOST_POINTS = 400  # of a curve; a longer one is drawn as means of equal numbers of steps
Z_95 = 1.96
LOG_ABOVE = 30.0  # largest value over smallest


@dataclass(frozen=True)
class Series:
    """One line: values by step; `low` and `high`, where there are any, are a band or error bars around it."""

    label: str
    steps: tuple[float, ...]
    values: tuple[float, ...]
    colour: int
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()


@dataclass(frozen=True)
class Chart:
    """A picture with its words. `bars`: `low` and `high` are error bars, and values are points."""

    title: str
    note: str
    series: tuple[Series, ...]
    bars: bool = False
    log: bool = False

    @property
    def flat(self) -> float | None:
        """The value that all of it has; None: it changes."""
        values = {value for series in self.series for value in series.values}
        return values.pop() if len(values) == 1 else None


LENGTH = "rollout/response_len/"
NO_SHARES = {  # figures of an evaluation set that are no shares of its prompts
    "loss": "mean of -log p over the tokens that would be learnt, nats",
    "reward": "mean over the samples",
    "response_len": "tokens, mean over the samples",
    "turns": "of the model, mean over the samples",
}
KNOWN: tuple[tuple[str, str, str], ...] = (
    (REWARD, "Reward", "mean over the samples of a step"),
    (f"{LENGTH}mean", "Response length", "tokens; band: shortest to longest"),
    ("train/entropy_loss", "Entropy", "nats per token"),
    (GAP, "Gap of engine and trainer", "mean |log-prob difference| per token, nats"),
    ("train/kl_loss", "KL to the reference", "nats per token"),
    ("train/kl_in_reward", "KL in the rewards", "nats per token"),
    ("train/ppo_kl", "KL to the old policy", "nats per token"),
    ("train/pg_clipfrac", "Clipped tokens", "share"),
    ("train/loss", "Loss", ""),
    ("train/grad_norm", "Gradient norm", "before clipping"),
    ("train/lr", "Learning rate", ""),
    (TRUNCATED, "Truncated responses", "share"),
    (FAILED_SHARE, "Samples without a reward", "share"),
    (ZERO_SPREAD, "Groups without spread", "all samples of the prompt had the same reward"),
    ("rollout/repetition_frac", "Repetitive responses", "share"),
    ("perf/tokens_per_gpu_per_sec", "Generated tokens", "per second and engine device"),
    (STEP_TIME, "Time of a step", "seconds, without evaluation and checkpoint"),
)
SHOWN_ELSEWHERE = tuple(f"perf/{name}_time" for name in ("update_weights", "rollout", "score", "train", "eval", "save"))
BANDS = {f"{LENGTH}mean": (f"{LENGTH}min", f"{LENGTH}max")}
PARTS_OF_OTHERS = {
    *SHOWN_ELSEWHERE,
    *(name for band in BANDS.values() for name in band),
}


def charts(runs: Sequence[RunFacts]) -> tuple[list[Chart], list[Chart], list[str]]:
    """What a reader looks for, everything else that was logged, and a sentence for each curve that never changes."""
    known = [*_reward_and_evaluations(runs), *(_metric(runs, *entry) for entry in KNOWN[1:])]
    named = {name for name, _, _ in KNOWN} | PARTS_OF_OTHERS
    others = sorted({name for run in runs for one in run.metrics.values() for name in one} - named)
    rest = [_metric(runs, name, name, "") for name in others]
    main = [chart for chart in known if chart.series and chart.flat is None]
    constant = [f"{chart.title}: {chart.flat:.4g}" for chart in (*known, *rest) if chart.flat is not None]
    return main, [chart for chart in rest if chart.series and chart.flat is None], constant


def interval(share: float, number: int) -> tuple[float, float]:
    """Bounds of a share of `number` trials, 95 % (Wilson's score interval)."""
    squared = Z_95**2 / number
    centre = (share + squared / 2) / (1 + squared)
    half = Z_95 / (1 + squared) * (share * (1 - share) / number + squared / (4 * number)) ** 0.5
    return min(share, centre - half), max(share, centre + half)


def _reward_and_evaluations(runs: Sequence[RunFacts]) -> list[Chart]:
    return [_metric(runs, *KNOWN[0]), *_evaluations(runs)]


def _metric(runs: Sequence[RunFacts], name: str, title: str, note: str) -> Chart:
    found = [_series(run, name, colour) for colour, run in enumerate(runs)]
    series = tuple(one for one in found if one.values)
    binned = any(len(one.steps) < len(run.metrics) for one, run in zip(found, runs, strict=True) if one.values)
    values = [value for one in series for value in one.values]
    wide = bool(values) and min(values) > 0 and max(values) / min(values) > LOG_ABOVE
    words = [note, "each point a mean of several steps" if binned and len(values) >= MOST_POINTS // 2 else ""]
    return Chart(title, "; ".join(filter(None, [*words, "logarithmic" if wide else ""])), series, log=wide)


def _series(run: RunFacts, name: str, colour: int) -> Series:
    steps = [step for step in sorted(run.metrics) if name in run.metrics[step]]
    size = max(1, -(-len(steps) // MOST_POINTS))

    def column(key: str) -> tuple[float, ...]:
        whole = all(key in run.metrics[step] for step in steps)
        return _means([run.metrics[step][key] for step in steps], size) if whole else ()

    low, high = (column(edge) for edge in BANDS[name]) if name in BANDS else ((), ())
    return Series(run.name, _means(steps, size), column(name), colour, low if high else (), high if low else ())


def _means(values: Sequence[float], size: int) -> tuple[float, ...]:
    parts = (values[start : start + size] for start in range(0, len(values), size))
    return tuple(sum(part) / len(part) for part in parts)


def _evaluations(runs: Sequence[RunFacts]) -> Iterable[Chart]:
    """One run: the sets together in a chart per rate. Several: a chart per set and rate, the runs together."""
    every = [results for run in runs for results in run.evaluations.values()]
    pairs = list(dict.fromkeys((name, rate) for results in every for name in results for rate in results[name]))
    if len(runs) > 1:
        for name, rate in pairs:
            yield _rate_chart(f"{rate} of {name}", [_rate(run, name, rate, run.name, i) for i, run in enumerate(runs)])
        return
    for rate in dict.fromkeys(rate for _, rate in pairs):
        names = [name for name, its_rate in pairs if its_rate == rate]
        yield _rate_chart(f"Evaluation: {rate}", [_rate(runs[0], name, rate, name, i) for i, name in enumerate(names)])


def _rate_chart(title: str, series: Sequence[Series]) -> Chart:
    shown = tuple(one for one in series if one.values)
    barred = any(one.low for one in shown)
    rate = title.removeprefix("Evaluation: ").partition(" of ")[0]
    share = "error bars: 95 % for the number of prompts" if barred else "share of prompts"
    return Chart(title, NO_SHARES.get(rate.partition("/")[0], share), shown, bars=True)


def _rate(run: RunFacts, name: str, rate: str, label: str, colour: int) -> Series:
    evaluations = run.evaluations
    steps = tuple(step for step in sorted(evaluations) if rate in evaluations[step].get(name, {}))
    values = tuple(evaluations[step][name][rate] for step in steps)
    number = run.num_prompts.get(name)
    if rate.partition("/")[0] in NO_SHARES or number is None or not all(0 <= value <= 1 for value in values):
        return Series(label, steps, values, colour)
    bounds = [interval(value, number) for value in values]
    return Series(label, steps, values, colour, tuple(low for low, _ in bounds), tuple(high for _, high in bounds))
