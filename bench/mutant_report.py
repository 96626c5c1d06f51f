"""What became of the mutants: results/mutants.json by module, and mutation.md with a judgement on each survivor."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from bench.mutant_sources import Mutant
from bench.record import RESULTS, commit, machine, versions

WANTED = 0.9  # share that is killed
JUDGEMENTS = Path(__file__).with_name("mutant_judgements.yaml")
REPORT = Path(__file__).with_name("mutation.md")
KEPT = RESULTS / "mutants.json"
SURVIVED, NO_TEST = (0,), (5, 33)  # exit codes as mutmut has them; any other means that a test failed, or:
TOO_LONG = (-24, 24, 36, 152, 255)  # the tests did not end in time: an endless loop, or a machine that is too busy
UNJUDGED = "to be killed"
HEAD = """# Mutation tests

Small faults, put into the pure modules one at a time: how many of them the fast tests notice. Made by `make mutants`
(`bench/mutants.py`, which says how, and what is left out) from `results/mutants.json` and `mutant_judgements.yaml`.
"""

Found = Mapping[Mutant, int | None]
Judgements = Mapping[tuple[str, str, str], str]


def show(found: Found) -> None:
    """Print survivors, as they are judged, and counts."""
    modules = _modules(found)
    print("\n".join([*_survivors(modules, _judgements()), *_table(modules)]))


def keep(found: Found) -> None:
    """Take the results of modules into results/mutants.json, in place of older ones."""
    record = json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.exists() else {}
    modules = record.get("modules", {}) | {path: new for path, new in _modules(found).items() if new["run"]}
    there = {path: modules[path] for path in sorted(modules) if (RESULTS.parents[1] / path).exists()}
    facts = {"machine": machine(), "versions": versions(("mutmut", "pytest", "torch")), "modules": there}
    KEPT.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def report(found: Found) -> str | int:
    """Write mutation.md from what is kept; what `sys.exit` is to be told: 0, or what is wrong with this run."""
    record, judgements = json.loads(KEPT.read_text(encoding="utf-8")), _judgements()
    modules = record["modules"]
    survivors = [_key(survivor) for module in modules.values() for survivor in module["survivors"]]
    kinds = Counter(judgements.get(key, UNJUDGED).partition(":")[0] for key in survivors)
    facts = [f"{name} {number}" for name, number in record["versions"].items()]
    lines = [HEAD, ", ".join([*facts, f"{record['machine']['cores']} cores."]), "", *_table(modules), ""]
    lines += ["Survivors: " + "; ".join(f"{number} {kind}" for kind, number in kinds.most_common()) + ".", ""]
    REPORT.write_text("\n".join([*lines, *_survivors(modules, judgements)]) + "\n", encoding="utf-8")
    for needless in sorted(judgements.keys() - set(survivors)):
        print("judged, but not among the survivors:", *needless, sep="\n  ")
    return _verdict(found)


def _verdict(found: Found) -> str | int:
    modules = _modules(found).values()
    if not_run := len(found) - sum(module["run"] for module in modules):
        return f"{not_run} of {len(found)} mutants were not run in time: give more --minutes, or --sample fewer"
    killed = sum(module["killed"] for module in modules)
    if killed < WANTED * len(found):
        return f"{killed / len(found):.1%} of the mutants are killed, wanted {WANTED:.0%}: see {REPORT.name}"
    return 0


def _modules(found: Found) -> dict[str, dict[str, Any]]:
    """Parts of a module that are kept, by path."""
    modules = {}
    for path in sorted({mutant.path for mutant in found}):
        codes = {mutant: code for mutant, code in found.items() if mutant.path == path}
        alive = [mutant for mutant, code in codes.items() if code in SURVIVED + NO_TEST]
        run = sum(code is not None for code in codes.values())
        modules[path] = {
            "mutants": len(codes),
            "run": run,
            "killed": run - len(alive),
            "too long": sum(code in TOO_LONG for code in codes.values()),
            "date": time.strftime("%Y-%m-%d"),
            "commit": commit(),
            "survivors": [
                {**asdict(mutant), "reached": codes[mutant] in SURVIVED}
                for mutant in sorted(alive, key=lambda mutant: (mutant.line, mutant.now))
            ],
        }
    return modules


def _judgements() -> dict[tuple[str, str, str], str]:
    given = yaml.safe_load(JUDGEMENTS.read_text(encoding="utf-8")) or []
    return {_key(item): item["judged"] for item in given}


def _key(item: Mapping[str, Any]) -> tuple[str, str, str]:
    """What stays the same when the file moves or lines are added above."""
    return item["function"], item["was"], item["now"]


def _survivors(modules: Mapping[str, Any], judgements: Judgements) -> list[str]:
    lines = []
    for survivor in (survivor for module in modules.values() for survivor in module["survivors"]):
        reached = "" if survivor["reached"] else " (no test reaches it)"
        judged = judgements.get(_key(survivor), UNJUDGED)
        lines += [f"- `{survivor['path']}:{survivor['line']}` in `{survivor['function']}`: {judged}{reached}"]
        lines += ["  ```diff", f"  - {survivor['was']}", f"  + {survivor['now']}", "  ```"]
    return lines


def _table(modules: Mapping[str, Any]) -> list[str]:
    counts = ("mutants", "run", "killed", "too long")
    rows = [(path, [m[count] for count in counts], f"{m['date']}, {m['commit']}") for path, m in modules.items()]
    rows.append(("all", [sum(column) for column in zip(*(numbers for _, numbers, _ in rows), strict=True)], ""))
    lines = ["| module | mutants | run | killed | of them by time | survived | killed, % | when |", "|---" * 8 + "|"]
    for path, (mutants, run, killed, too_long), when in rows:
        share = f"{100 * killed / max(1, run):.1f}"
        lines.append(f"| {path} | {mutants} | {run} | {killed} | {too_long} | {run - killed} | {share} | {when} |")
    return lines
