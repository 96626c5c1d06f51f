"""What a seed means: where a small run is, what happens to it, and when. Pure."""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass
from typing import Any, Literal

Place = Literal["local", "slurm", "defaults"]  # defaults: local, and the run file says nothing of checkpoints

NUM_STEPS = 6
PHASES = ("sync", "rollout", "score", "update", "save")
SECOND_FAULT = 0.25  # share of the seeds that have one
SIGNAL_S = 30
DEFAULTS_FAULTS, DEFAULTS_STEPS = 5, 20  # of a run with default checkpoints: one fault every 4 steps


@dataclass(frozen=True)
class Layout:
    """Who is there."""

    name: str
    trainers: int = 1  # of a node
    tensor_parallel: int = 1
    engines: int = 1  # of a node
    nodes: int = 1  # with trainers
    rewards: int = 0  # nodes that score

    @property
    def losses(self) -> str:
        """Layouts with the same text have the same losses: those of the trainers alone."""
        return f"{self.trainers * self.nodes}x{self.tensor_parallel}"


LAYOUTS: dict[Place, tuple[Layout, ...]] = {
    "local": (
        Layout("one"),
        Layout("data parallel", trainers=2),
        Layout("tensor parallel", trainers=2, tensor_parallel=2, engines=2),
    ),
    "slurm": (
        Layout("one node"),
        Layout("two nodes", nodes=2),
        Layout("a node that scores", rewards=1),
    ),
    "defaults": (Layout("one"), Layout("data parallel", trainers=2)),
}


@dataclass(frozen=True)
class Moment:
    """When: some time after an attempt was asked for, or after its first phase of a name from a step on."""

    after_s: float
    phase: str | None = None
    step: int = 0

    def __str__(self) -> str:
        since = f"{self.phase} of step {self.step}" if self.phase else "the start"
        return f"{self.after_s:.1f} s after {since}"


@dataclass(frozen=True)
class Fault:
    """What happens: `kind` names a function of the place; the others say whom it meets and for how long."""

    kind: str
    target: str = ""  # agent, rank, engine, engine child, torchrun, command, rewards
    node: int = 0  # of those of the attempt, modulo their number
    for_s: float = 0.0

    def __str__(self) -> str:
        words = [self.kind, self.target, f"for {self.for_s:.0f} s" if self.for_s else ""]
        return " ".join(word for word in words if word) + (f" (node {self.node})" if self.node else "")


@dataclass(frozen=True)
class Case:
    """One run and what happens to it; the n-th fault meets the n-th attempt, or the first one as well (`together`)."""

    seed: int
    place: Place
    layout: Layout
    interval: int | None  # steps from checkpoint to checkpoint; None: as by default
    faults: tuple[tuple[Moment, Fault], ...]
    together: bool
    num_steps: int = NUM_STEPS

    def told(self) -> dict[str, Any]:
        """For the line of the seed."""
        return {
            "seed": self.seed,
            "place": self.place,
            "layout": self.layout.name,
            "fault": [str(fault) for _, fault in self.faults],
            "moment": [str(moment) for moment, _ in self.faults],
            "exact": asdict(self),
        }


KINDS: dict[Place, dict[str, int]] = {
    "local": {
        "kill": 6,
        "stop": 4,
        "interrupt": 4,
        "terminate": 2,
        "full": 3,
        "unwritable": 2,
        "frozen": 2,
        "slow": 1,
    },
    "slurm": {
        "kill": 5,
        "stop": 4,
        "scancel": 3,
        "cancel": 1,
        "save and end": 1,
        "requeue": 3,
        "warn": 2,
        "full": 2,
        "unwritable": 1,
        "frozen": 2,
        "controller": 2,
        "lose": 4,
        "shorter": 2,
        "longer": 1,
    },
    "defaults": {"kill": 1, "interrupt": 1},
}
TARGETS: dict[Place, tuple[str, ...]] = {
    "local": ("agent", "rank", "engine", "engine child", "torchrun", "command"),
    "slurm": ("agent", "rank", "engine", "engine child", "torchrun", "rewards"),
    "defaults": ("agent", "rank", "command"),
}
LASTING = {"stop": (0.5, 14.0), "frozen": (0.5, 20.0), "slow": (5.0, 20.0), "controller": (0.5, 20.0)}


def case_of(seed: int, place: Place | None = None) -> Case:
    """The case of a seed; the same for ever, as long as the lists above stay."""
    chance = random.Random(f"{seed} {place}")
    where: Place = place or chance.choice(("local", "slurm"))
    layout = chance.choice(LAYOUTS[where])
    if where == "defaults":
        each = [(_moment_within(chance, number), _fault(chance, where, layout)) for number in range(DEFAULTS_FAULTS)]
        return Case(seed, where, layout, None, tuple(each), False, DEFAULTS_STEPS)
    number = 2 if chance.random() < SECOND_FAULT else 1
    faults = tuple((_moment(chance), _fault(chance, where, layout)) for _ in range(number))
    return Case(seed, where, layout, chance.choice((1, 1, 2)), faults, chance.random() < 0.5)


def _moment(chance: random.Random) -> Moment:
    """Two of three amid the steps, as most of a run's time is there; the others while it starts."""
    if chance.random() < 0.35:
        return Moment(chance.uniform(0.0, 30.0) * chance.random())
    return Moment(chance.random() ** 2, chance.choice(PHASES), chance.randrange(NUM_STEPS - 1))


def _moment_within(chance: random.Random, number: int) -> Moment:
    """When the n-th fault of one run comes: one of five while an attempt starts, the others in their share of steps."""
    if chance.random() < 0.2:
        return Moment(chance.uniform(0.0, 20.0))
    share = DEFAULTS_STEPS // DEFAULTS_FAULTS
    return Moment(chance.uniform(0.0, 1.0), chance.choice(PHASES), number * share + chance.randrange(share))


def _fault(chance: random.Random, place: Place, layout: Layout) -> Fault:
    kinds = KINDS[place]
    (kind,) = chance.choices(list(kinds), list(kinds.values()))
    target = chance.choice(TARGETS[place]) if kind in ("kill", "stop") else ""
    if target == "rewards" and not layout.rewards:
        target = "agent"
    node = chance.randrange(layout.nodes + layout.rewards) if kind in ("kill", "stop", "lose") else 0
    low, high = LASTING.get(kind, (0.0, 0.0))
    return Fault(kind, target, node, chance.uniform(low, high))
