"""What became of the mutants: mutation.md, with a person's judgement on each that no test noticed."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import yaml

from bench.mutant_sources import Mutant
from bench.record import commit, machine, versions

WANTED = 0.9  # share that is killed
JUDGEMENTS = Path(__file__).with_name("mutant_judgements.yaml")
REPORT = Path(__file__).with_name("mutation.md")
SURVIVED, NO_TEST = (0,), (5, 33)  # exit codes as mutmut has them; any other means that a test failed, or did not end
UNJUDGED = "to be killed"
HEAD = """# Mutation tests

Small faults, put into the pure modules one at a time: how many of them the fast tests notice. Made by `make mutants`
(`bench/mutants.py`), which says how and what is left out; judgements are kept in `mutant_judgements.yaml`.

{date}, commit {commit}, {versions}, {cores} cores.

"""

Found = Mapping[Mutant, int | None]


class Count(NamedTuple):
    """Numbers of mutants that were run."""

    killed: int
    survived: int

    @property
    def share(self) -> float:
        """The share that is killed."""
        return self.killed / max(1, self.killed + self.survived)


def show(found: Found) -> None:
    """Print counts, and survivors with how each is judged."""
    judgements = _judgements()
    for mutant in _survivors(found):
        untouched = " (no test reaches it)" if found[mutant] in NO_TEST else ""
        print(f"{mutant.path}:{mutant.line} in {mutant.function}: {judgements.get(mutant.key, UNJUDGED)}{untouched}")
        print(f"  - {mutant.was}\n  + {mutant.now}")
    print("\n".join(_table(found)))


def report(found: Found) -> str | int:
    """Write mutation.md; what `sys.exit` is to be told: 0, or what is wrong."""
    judgements, survivors = _judgements(), _survivors(found)
    facts = versions(("mutmut", "pytest", "torch"))
    head = HEAD.format(
        date=time.strftime("%Y-%m-%d"),
        commit=commit(),
        versions=", ".join(f"{name} {number}" for name, number in facts.items()),
        cores=machine()["cores"],
    )
    judged = Counter(judgements.get(mutant.key, UNJUDGED).partition(":")[0] for mutant in survivors)
    kinds = "; ".join(f"{count} {kind}" for kind, count in judged.most_common())
    lines = [*_table(found), "", f"Survivors: {kinds or 'none'}.", ""]
    for mutant in survivors:
        lines += [f"- `{mutant.path}:{mutant.line}` in `{mutant.function}`: {judgements.get(mutant.key, UNJUDGED)}"]
        lines += ["  ```diff", f"  - {mutant.was}", f"  + {mutant.now}", "  ```"]
    REPORT.write_text(head + "\n".join(lines) + "\n", encoding="utf-8")
    for stale in judgements.keys() - {mutant.key for mutant in survivors}:
        print("judgement without a survivor:", *stale, sep="\n  ")
    return _verdict(found)


def _verdict(found: Found) -> str | int:
    unreached = sum(code is None for code in found.values())
    if unreached:
        return f"{unreached} of {len(found)} mutants were not run in time: give more --minutes, or --sample fewer"
    share = _count(found, found).share
    if share < WANTED:
        return f"{share:.1%} of the mutants are killed, wanted {WANTED:.0%}: see the survivors in {REPORT.name}"
    return 0


def _judgements() -> dict[tuple[str, str, str], str]:
    given = yaml.safe_load(JUDGEMENTS.read_text(encoding="utf-8")) or []
    return {(item["in"], str(item["was"]), str(item["now"])): item["judged"] for item in given}


def _survivors(found: Found) -> list[Mutant]:
    alive = [mutant for mutant, code in found.items() if code in SURVIVED + NO_TEST]
    return sorted(alive, key=lambda mutant: (mutant.path, mutant.line, mutant.now))


def _table(found: Found) -> list[str]:
    paths = sorted({mutant.path for mutant in found})
    rows = [(path, _count(found, [m for m in found if m.path == path])) for path in paths]
    rows.append(("all", _count(found, found)))
    lines = ["| module | mutants | killed | survived | killed, % |", "|---|---|---|---|---|"]
    return lines + [
        f"| {path} | {sum(count)} | {count.killed} | {count.survived} | {count.share * 100:.1f} |"
        for path, count in rows
    ]


def _count(found: Found, mutants: Iterable[Mutant]) -> Count:
    codes = [found[mutant] for mutant in mutants if found[mutant] is not None]
    survived = sum(code in SURVIVED + NO_TEST for code in codes)
    return Count(len(codes) - survived, survived)
