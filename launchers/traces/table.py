"""A step's time as a table: a row for each phase, over all trainer ranks. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from statistics import mean

from rich.table import Table

from launchers.traces.breakdown import PhaseTime

TOP = 3  # operators of a phase
US = 1e6  # microseconds in a second
DASH = "–"
# then the GPU is the engines', whom a rank's trace does not see
OF_ENGINES = ("rollout", "eval")


def time_table(step: int, ranks: Sequence[Sequence[PhaseTime]]) -> Table:
    """The table of a step.

    Args:
        ranks: the phases of each rank; all ranks have the same ones.
    """
    total = mean(sum(one.length_us for one in phases) for phases in ranks)
    has_gpu = any(one.gpu_busy_us is not None for phases in ranks for one in phases)
    table = Table(title=f"step {step}: {total / US:.3f} s, {_count(len(ranks))}", title_justify="left")
    table.add_column("phase")
    for name in ("seconds", "share", *["GPU idle"] * has_gpu, "sent"):
        table.add_column(name, justify="right")
    table.add_column(f"operators by own time{' on the GPU' if has_gpu else ''}, mean of ranks", overflow="fold")
    for same in zip(*ranks, strict=True):
        table.add_row(*_row(same, total, has_gpu))
    return table


def _row(same: Sequence[PhaseTime], total: float, has_gpu: bool) -> list[str]:
    """One phase, of all ranks."""
    lengths = [one.length_us for one in same]
    share = f"{mean(lengths) / total:.1%}" if total else DASH
    return [same[0].name, _seconds(lengths), share, *[_idle(same)] * has_gpu, _sent(same), _operators(same)]


def _count(num_ranks: int) -> str:
    return "1 trainer rank" if num_ranks == 1 else f"{num_ranks} trainer ranks"


def _seconds(lengths: Sequence[float]) -> str:
    """The mean, and where ranks differ the shortest and the longest."""
    low, middle, high = (f"{us / US:.3f}" for us in (min(lengths), mean(lengths), max(lengths)))
    return middle if low == high else f"{middle} ({low} to {high})"


def _idle(same: Sequence[PhaseTime]) -> str:
    shares = [1 - one.gpu_busy_us / one.length_us for one in same if one.gpu_busy_us is not None and one.length_us]
    return f"{mean(shares):.0%}" if shares and same[0].name not in OF_ENGINES else DASH


def _sent(same: Sequence[PhaseTime]) -> str:
    """Bytes that a rank has sent; each rank has all of them."""
    moved = max(one.moved_bytes for one in same)
    return f"{moved / 1e9:.2f} GB" if moved >= 1e7 else f"{moved / 1e6:.2f} MB" if moved else DASH


def _operators(same: Sequence[PhaseTime]) -> str:
    """The longest ones; on a GPU those that launched the most work."""
    summed: dict[str, float] = defaultdict(float)
    on_gpu = any(one.gpu_operators for one in same)
    for one in same:
        for name, us in (one.gpu_operators if on_gpu else one.operators).items():
            summed[name] += us / len(same)
    longest = sorted(summed.items(), key=lambda pair: -pair[1])[:TOP]
    return ", ".join(f"{name} {us / US:.3f}" for name, us in longest) or DASH
