"""The state of a job in one value, and the state of a whole from the states of its parts. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from common.hostlist import HostlistError, expand

# of a whole with parts in several states, the first of these is shown: any live > any failed > completed
LIVE = (
    "RUNNING", "SUSPENDED", "STOPPED", "SIGNALING", "COMPLETING", "STAGE_OUT", "RESIZING", "CONFIGURING", "REQUEUED",
    "REQUEUE_FED", "RESV_DEL_HOLD", "REQUEUE_HOLD", "SPECIAL_EXIT", "PENDING",
)  # fmt: skip
FAILED = (
    "NODE_FAIL", "BOOT_FAIL", "OUT_OF_MEMORY", "TIMEOUT", "FAILED", "DEADLINE", "PREEMPTED", "REVOKED", "CANCELLED",
)  # fmt: skip
COMPLETED = "COMPLETED"
GONE = "GONE"
"""Ours: ended, and Slurm no longer says how."""
UNKNOWN = "UNKNOWN"
"""Ours: Slurm could not be asked."""
ORDER = {state: place for place, state in enumerate((*LIVE, *FAILED, COMPLETED, GONE, UNKNOWN))}


@dataclass(frozen=True)
class JobState:
    """One job, all its components taken together.

    Attributes:
        state: Slurm's word, `GONE` or `UNKNOWN`.
        reason: why it is pending, or what Slurm adds to the end.
        nodes: where it runs or ran, components in order.
        start, end: seconds since the epoch; the end of a running job is the one that its time limit sets.
        time_limit_s: None: unlimited or not known.
        restarts: how often it was requeued; None: not known (sacct does not say).
        exit_code: of a job that has ended; 128 + signal for one killed by a signal.
    """

    state: str
    reason: str | None = None
    nodes: tuple[str, ...] = ()
    start: float | None = None
    end: float | None = None
    time_limit_s: int | None = None
    restarts: int | None = None
    exit_code: int | None = None

    @property
    def is_live(self) -> bool:
        """Whether it runs or may run (again)."""
        return self.state in LIVE

    @property
    def has_ended(self) -> bool:
        return not self.is_live and self.state != UNKNOWN

    def __str__(self) -> str:
        return self.state if self.reason is None else f"{self.state} ({self.reason})"


def fold(parts: Sequence[JobState]) -> JobState:
    """The state of a job from those of its components or array elements, in their order; not for none at all."""
    telling = min(parts, key=lambda part: ORDER.get(part.state, len(ORDER)))
    starts = [part.start for part in parts if part.start is not None]
    ends = [part.end for part in parts if part.end is not None]
    codes = [part.exit_code for part in parts if part.exit_code is not None]
    return replace(
        telling,
        reason=telling.reason or next((part.reason for part in parts if part.reason), None),
        nodes=tuple(dict.fromkeys(node for part in parts for node in part.nodes)),
        start=min(starts, default=None),
        end=max(ends, default=None),
        restarts=parts[0].restarts,
        exit_code=telling.exit_code or next((code for code in codes if code), telling.exit_code),
    )


def read_state(text: str) -> str:
    """`CANCELLED by 0` and `CANCELLED+` are CANCELLED."""
    return text.split()[0].rstrip("+") if text.split() else UNKNOWN


def read_reason(text: str) -> str | None:
    """Slurm's word for no reason is None."""
    return None if text in ("", "None") else text


def read_nodes(text: str) -> tuple[str, ...]:
    """Names of the nodes in a list; none for `None assigned` and the like."""
    try:
        return () if text.startswith(("None", "(null)")) else expand(text)
    except HostlistError:
        return ()


def read_time(text: str) -> float | None:
    """Seconds since the epoch (SLURM_TIME_FORMAT=%s); N/A and Unknown are None."""
    return float(text) if text.isdigit() else None


def read_time_limit(text: str) -> int | None:
    """Seconds from squeue's `1-02:03:04`, `2:00` or `UNLIMITED`."""
    days, dash, clock = text.rpartition("-")
    try:
        numbers = [int(number) for number in clock.split(":")]
    except ValueError:
        return None
    seconds = int(days) * 86400 if dash else 0
    for number, unit in zip(reversed(numbers), (1, 60, 3600), strict=False):
        seconds += number * unit
    return seconds


def read_wait_status(text: str) -> int | None:
    """Exit code from squeue's raw wait status."""
    if not text.isdigit():
        return None
    status = int(text)
    return 128 + (status & 127) if status & 127 else (status >> 8) & 255


def read_exit_code(text: str) -> int | None:
    """Exit code from sacct's `CODE:SIGNAL`."""
    code, colon, number = text.partition(":")
    if not (code.isdigit() and colon and number.isdigit()):
        return None
    return 128 + int(number) if int(number) else int(code)
