"""Names in the traces of a step: who writes them and who reads them agree here. Standard library only."""

from __future__ import annotations

PHASE = "phase "
STEP = "step "
BUCKET, BYTES = "bucket of ", " bytes"  # of weights on their way to engines


def phase_range(name: str) -> str:
    """The range of a phase: `phase update`."""
    return f"{PHASE}{name}"


def step_range(step: int) -> str:
    """The range of the whole step: `step 3`."""
    return f"{STEP}{step}"


def bucket_range(num_bytes: int) -> str:
    """The range of one bucket of a sync: `bucket of 1024 bytes`."""
    return f"{BUCKET}{num_bytes}{BYTES}"


def bucket_bytes(name: str) -> int:
    """The bytes that a bucket's range tells; 0: the range is another's."""
    told = name.removeprefix(BUCKET).removesuffix(BYTES)
    return int(told) if name == f"{BUCKET}{told}{BYTES}" and told.isdigit() else 0


def is_ours(name: str) -> bool:
    """Whether a range is one of these: a trace that is cut down keeps it."""
    return name.startswith((PHASE, STEP, BUCKET))


def rank_trace(rank: int) -> str:
    """The file of a trainer rank's trace."""
    return f"rank_{rank:05d}.json.gz"
