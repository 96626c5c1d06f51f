"""How far slime's launch scripts come: each is imported, and its run file held against all checks that need no files.

    python bench/slime_scripts.py CHECKOUT

CHECKOUT is a copy of github.com/THUDM/slime. Nothing of it is run. Prints a table of scripts and one of the flags
without a counterpart, in markdown, as docs/moving-in.md has them. Leaves out: weights, data and own code of the
scripts, which are not here; and whether a run would learn.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from common.mistake import Mistake
from core.checks.engine_weights import sizes_fit
from core.checks.model import shape_divides
from core.checks.rules import RULES
from core.config import load_run_file
from core.config.schema import RunConfig
from hpc.site.schema import Site
from launchers.moving_in.import_script import Imported, import_script
from launchers.moving_in.shell import ScriptError
from launchers.submit.memory_check import refusals
from launchers.submit.submission import Refused, make_submission
from launchers.submit.which_gpus import named_gpu
from modelcfg import ModelShape

FOLDERS = ("scripts", "scripts/low_precision", "examples/*")
VARIABLES = {"BASE_DIR": "/base", "BASE_FOLDER": "/base"}  # what the scripts expect of their caller
GPU = "h100"
WITH_FILES = re.compile(r"model\.|data(\.|$)|eval\.sets|reward\.type|rollout\.generate$|logging\.sinks")
"""Keys whose mistakes are of files, packages and code that are not here."""
HARD = ("task", "code", "result")


@dataclass(frozen=True)
class Row:
    """A script and what became of it.

    Attributes:
        refused: why it gave no run file; empty: it gave one.
        mistakes: of the run file, those of missing files aside.
        fits: whether the plan fits GPUs of that kind; None: the shape is not known here.
    """

    script: str
    found: Imported | None
    refused: str
    mistakes: tuple[str, ...]
    fits: bool | None

    @property
    def valid(self) -> bool:
        """Whether all keys of the run file are valid, and none waits to be filled in."""
        return self.found is not None and not self.found.mistakes and not self.found.draft.todo

    @property
    def could_run(self) -> bool:
        """Whether the run is the same but for memory and speed, its model known, and nothing is in its way."""
        found = self.found
        return (
            found is not None
            and self.valid
            and not (self.mistakes or found.unknown_family or found.draft.losses(*HARD) or not self.fits)
        )


def scripts(checkout: Path) -> list[Path]:
    """The launch scripts of a checkout, in order."""
    found = [path for folder in FOLDERS for path in sorted(checkout.glob(f"{folder}/*.sh"))]
    return [path for path in found if re.search(r"train(_async)?\.py", path.read_text(encoding="utf-8"))]


def row(checkout: Path, script: Path) -> Row:
    """One script."""
    name = str(script.relative_to(checkout))
    try:
        found = import_script(script, VARIABLES, [checkout / "scripts" / "models"])
    except ScriptError as error:
        return Row(name, None, str(error), (), None)
    if found.mistakes:
        return Row(name, found, "", tuple(map(str, found.mistakes)), None)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.yaml"
        path.write_text(found.text, encoding="utf-8")
        config = load_run_file(path)
    mistakes = [mistake for rule in RULES for mistake in rule.check(config)]
    mistakes += [*shape_divides(config, found.shape), *sizes_fit(config, found.shape)]
    kept = tuple(str(mistake) for mistake in mistakes if not of_missing_files(mistake))
    return Row(name, found, "", kept, None if found.shape is None else fits(config, found.shape))


def of_missing_files(mistake: Mistake) -> bool:
    """Whether only files, packages or code that are not here are missed."""
    return WITH_FILES.match(mistake.key) is not None


def fits(config: RunConfig, shape: ModelShape) -> bool:
    """Whether the plan of the run fits its GPUs."""
    try:
        return not refusals(make_submission(config, Site(), shape=shape, device=named_gpu(GPU)))
    except Refused:
        return False


def table(rows: list[Row]) -> Iterator[str]:
    """The scripts as markdown."""
    yield "| script | keys valid | other checks | model | fits " + GPU.upper() + " | in the way |"
    yield "|---|---|---|---|---|---|"
    for one in rows:
        found = one.found
        if found is None:
            yield f"| `{one.script}` | {one.refused} | | | | |"
            continue
        lost = Counter(lost.loses for lost in found.draft.lost)
        way = ", ".join(f"{count} {kind}" for kind in HARD if (count := lost[kind])) or "–"
        family = "no family" if found.unknown_family else found.model or "by config.json"
        fit = {None: "–", True: "yes", False: "no"}[one.fits]
        checks = "pass" if not one.mistakes else f"{len(one.mistakes)} mistake{'s' * (len(one.mistakes) > 1)}"
        yield f"| `{one.script}` | {'yes' if one.valid else 'to be filled in'} | {checks} | {family} | {fit} | {way} |"


def flags(rows: list[Row]) -> Iterator[str]:
    """Flags without a counterpart as markdown, those of most scripts first."""
    uses: Counter[tuple[str, str]] = Counter()
    reasons: dict[tuple[str, str], tuple[str, str]] = {}
    for one in rows:
        for lost in one.found.draft.lost if one.found else ():
            flag = lost.flag.split()[0]
            uses[flag, lost.loses] += 1
            reasons.setdefault((flag, lost.loses), (lost.why, lost.do))
    yield "| flag | scripts | loses | why | what to do |"
    yield "|---|---|---|---|---|"
    for (flag, loses), count in sorted(uses.items(), key=lambda item: (-item[1], item[0])):
        why, do = reasons[flag, loses]
        yield f"| `{flag}` | {count} | {loses} | {why} | {do} |"


def counts(rows: list[Row]) -> Iterator[str]:
    """The sums, one a line."""
    total = len(rows)
    made = sum(one.found is not None and not one.found.mistakes for one in rows)
    yield f"run file with valid keys: {made} of {total}"
    yield f"of these nothing to be filled in: {sum(one.valid for one in rows)}"
    yield f"of these all checks that need no files pass: {sum(one.valid and not one.mistakes for one in rows)}"
    yield f"model of a known family: {sum(one.found is not None and not one.found.unknown_family for one in rows)}"
    yield f"could run today: {sum(one.could_run for one in rows)}"


def main() -> None:
    """The tables of a checkout."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--mistakes", action="store_true", help="list what the other checks find")
    given = parser.parse_args()
    checkout = given.checkout.absolute()
    rows = [row(checkout, script) for script in scripts(checkout)]
    if not rows:
        parser.error(f"{checkout}: found no launch scripts; wanted a checkout of slime: clone github.com/THUDM/slime")
    for line in ("", *counts(rows), "", *table(rows), "", *flags(rows)):
        print(line)
    for one in rows if given.mistakes else ():
        for mistake in one.mistakes:
            print(f"{one.script}: {mistake}")


if __name__ == "__main__":
    main()
