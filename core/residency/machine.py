"""The state machine: at each phase's beginning, give up what the table does not grant, then take what it does.

    enter(phase):  every owner gives up its surplus ─► all ranks agree ─► every owner takes what it lacks

Taking is refused while anybody holds what the phase does not grant, so two owners never overlap by mistake.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

import torch

from core.residency.memory import DeviceMemory, describe, gib, read_memory
from core.residency.table import TABLE, TRAINER, Holding

log = logging.getLogger(__name__)

NCCL_WANTS_MEMORY = re.compile(r"Failed to CUDA (?:host )?[cm]alloc|out of memory", re.IGNORECASE)


class ResidencyError(RuntimeError):
    """Somebody wants GPU memory that the table does not grant, or that is not there; nothing was taken."""


class Owner(Protocol):
    """Who holds parts of a GPU: the trainer rank, or the engines that this rank drives."""

    name: str

    def held(self) -> Mapping[str, int]:
        """Part -> bytes on the device now (0: not known)."""
        ...

    def shrink_to(self, parts: frozenset[str]) -> None:
        """Return the memory of all other parts to the device; their contents are kept where they matter."""
        ...

    def grow_to(self, parts: frozenset[str]) -> None:
        """Have these parts on the device too."""
        ...


class Residency:
    """This rank's GPU: who holds what.

    Collective: `enter` and everything built on it, over all trainer ranks; the ranks of a node wait for one another
    between giving up and taking, because an engine may sit on the GPUs of several of them.
    """

    def __init__(
        self,
        owners: Sequence[Owner],
        agree: Callable[[], object],
        *,
        device: str = "cpu",
        table: Mapping[str, Holding] = TABLE,
        planned: Mapping[str, tuple[int, int]] | None = None,
        quiet: bool = False,
    ) -> None:
        """Begin with nothing moved: owners hold what they hold.

        Args:
        owners: in the order in which they give up and take.
        agree: a barrier over all trainer ranks; not called where the table is the same for all phases.
        device: "cpu" or "cuda"; says where memory is read.
        planned: phase -> bytes of the device when it begins, and when it is fullest; logged beside what is found.
        quiet: log nothing (all ranks but the first).
        """
        self._planned = planned or {}
        self._moves = len(set(table.values())) > 1
        self._owners = {owner.name: owner for owner in owners}
        self._agree = agree
        self._device = device
        self._table = table
        self._level = logging.DEBUG if quiet else logging.INFO
        self._seconds = 0.0
        self.phase = "start"

    def enter(self, phase: str, step: int = 0) -> None:
        """Rearrange the GPU for a phase. Moves nothing where nothing changes."""
        began, before, wanted = time.monotonic(), read_memory(self._device), self._wanted(phase)
        self.phase = phase
        if self._moves:
            self._rearrange(wanted)
        seconds = time.monotonic() - began
        self._seconds += seconds
        self._log(phase, step, seconds, before)

    def _rearrange(self, wanted: Holding) -> None:
        for owner in self._owners.values():
            owner.shrink_to(wanted.of(owner.name))
        self._agree()
        for owner in self._owners.values():
            self.acquire(owner.name, wanted.of(owner.name))

    def acquire(self, owner: str, parts: frozenset[str]) -> None:
        """Have one owner hold these parts too.

        Raises:
            ResidencyError: if the phase does not grant them, or another owner still holds what it must not.
        """
        granted = self._wanted(self.phase)
        if refused := parts - granted.of(owner):
            raise ResidencyError(
                f"the {owner} wants {_list(refused)} in phase {self.phase}, which grants it "
                f"{_list(granted.of(owner)) or 'nothing'}: enter a phase that grants them first"
            )
        for other in self._owners.values():
            if other.name != owner and (held := frozenset(other.held()) - granted.of(other.name)):
                raise ResidencyError(
                    f"the {owner} wants {_list(parts)} in phase {self.phase} while the {other.name} still holds "
                    f"{_list(held)}: it must give them up first. {describe(self.holdings())}"
                )
        self._owners[owner].grow_to(parts)

    def holdings(self) -> dict[str, dict[str, int]]:
        """Owner -> part -> bytes."""
        return {name: dict(owner.held()) for name, owner in self._owners.items()}

    @contextmanager
    def inside(self, phase: str, step: int) -> Iterator[None]:
        """`enter`, and an out-of-memory error that says which phase it was and who held what."""
        try:
            self.enter(phase, step)
            yield
        except (torch.OutOfMemoryError, torch.distributed.DistBackendError) as error:
            if not _lacks_memory(error):
                raise
            raise self._explained(error, phase, step) from error

    @contextmanager
    def borrowed(self, phase: str) -> Iterator[None]:
        """Enter another phase inside the present one, and go back to it."""
        outer = self.phase
        self.enter(phase)
        yield
        if outer in self._table:
            self.enter(outer)

    def take_seconds(self) -> float:
        """Seconds spent in `enter` since the last call."""
        seconds, self._seconds = self._seconds, 0.0
        return seconds

    def _wanted(self, phase: str) -> Holding:
        if phase not in self._table:
            raise ResidencyError(f"phase {phase!r} is not in the residency table: choose from {', '.join(self._table)}")
        return self._table[phase]

    def _explained(self, error: BaseException, phase: str, step: int) -> ResidencyError:
        now = read_memory(self._device)
        return ResidencyError(
            f"out of GPU memory in phase {phase} of step {step}: {gib(now.used)} of {gib(now.total)} GiB used. "
            f"Held: {describe(self.holdings())}; the rest of this process {gib(_beside(now, self.holdings()))} GiB "
            f"(activations, caches). {self._plan_text(phase)}"
            "Lower train.max_tokens_per_micro_batch, set train.recompute to full, spread the model over more GPUs, "
            f"{self._further_help()}or lower placement.engine_memory_fraction. ({str(error).splitlines()[0]})"
        )

    def _log(self, phase: str, step: int, seconds: float, before: DeviceMemory) -> None:
        after, holdings = read_memory(self._device) if self._moves else before, self.holdings()
        held = sum(size for parts in holdings.values() for size in parts.values())
        begins, fullest = self._planned.get(phase, (0, 0))
        log.log(
            self._level,
            "residency=%s step=%d seconds=%.3f used_gib=%s->%s plan_gib=%s..%s held_gib=%s own_gib=%s holds=%r",
            phase,
            step,
            seconds,
            gib(before.used),
            gib(after.used),
            gib(begins),
            gib(fullest),
            gib(held),
            gib(after.own_reserved),
            describe(holdings),
        )

    def _further_help(self) -> str:
        if self._moves:
            return ""
        beside = any(owner.held() for name, owner in self._owners.items() if name != TRAINER)
        return f"set {'placement.offload to on, ' if beside else ''}train.cuda_graphs to false, "

    def _plan_text(self, phase: str) -> str:
        return f"Planned: {gib(self._planned[phase][1])} GiB in all. " if phase in self._planned else ""


def _lacks_memory(error: Exception) -> bool:
    """Whether it ran out of memory: torch's allocator, or NCCL, which asks the driver for its own buffers."""
    return isinstance(error, torch.OutOfMemoryError) or bool(NCCL_WANTS_MEMORY.search(str(error)))


def _beside(memory: DeviceMemory, holdings: Mapping[str, Mapping[str, int]]) -> int:
    return max(0, memory.own_allocated - sum(holdings.get(TRAINER, {}).values()))


def _list(parts: frozenset[str]) -> str:
    return ", ".join(sorted(parts))
