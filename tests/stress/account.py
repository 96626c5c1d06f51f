"""Every group of a long run, by where it was drawn: trained, rejected, or carried over, and one of these alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from core.loop.carried_file import read_carried
from core.loop.manifest import find_latest
from core.trajectory import list_steps, read_step, step_path

NUM_ROWS, GROUP = 40, 2


def rejected(row: int) -> bool:
    """What the filter says of a row."""
    return row % 5 == 0


@dataclass(frozen=True)
class Account:
    """Groups of a run, by where they were drawn.

    Attributes:
        drawn: places in the data, from 0.
        trained: step files that have a group of a row, by row.
        carried: places of groups that the next step would go on with.
        seeds: how often a seed of a trained sample is there.
        sizes: samples of each trained group.
    """

    drawn: int
    trained: Mapping[int, int]
    carried: frozenset[int]
    seeds: Mapping[int, int]
    sizes: tuple[int, ...]

    @property
    def rejected(self) -> int:
        """Groups that the filter has refused; those on their way it has not seen yet."""
        return sum(rejected(place % NUM_ROWS) for place in range(self.drawn) if place not in self.carried)

    def violations(self, num_trained: int) -> Iterator[str]:
        """What is lost or doubled, in words; nothing, where each group drawn has come to one end."""
        wanted = Counter(
            place % NUM_ROWS
            for place in range(self.drawn)
            if not rejected(place % NUM_ROWS) and place not in self.carried
        )
        found = Counter(dict(self.trained))
        for row in sorted({*wanted, *found}):
            if wanted[row] != found[row]:
                yield f"row {row} was trained {found[row]} times; wanted {wanted[row]}"
        if twice := [seed for seed, count in self.seeds.items() if count > 1]:
            yield f"{len(twice)} samples were trained twice"
        if found.total() != num_trained:
            yield f"{found.total()} groups were trained; wanted {num_trained}"
        if whole := [size for size in self.sizes if size != GROUP]:
            yield f"{len(whole)} groups are not whole: {whole[:5]}"


def account_of(run_dir: Path) -> Account:
    """What the step files and the last checkpoint of a run say."""
    trained: Counter[int] = Counter()
    seeds: Counter[int] = Counter()
    sizes: list[int] = []
    for step in list_steps(run_dir):
        record = read_step(step_path(run_dir, step))
        assert record.seed is not None
        seeds.update(record.seed.tolist())
        groups = dict(zip(record.group.tolist(), record.row.tolist(), strict=True))
        trained.update(groups.values())
        sizes += Counter(record.group.tolist()).values()
    found = find_latest(run_dir / "checkpoints")
    assert found is not None
    folder, state = found
    carried = frozenset(one.origin.position for one in read_carried(folder))
    return Account(state.data_position, trained, carried, seeds, tuple(sizes))
