"""Deliberate mismatch: run files, the schedule, figures of runs, and that the page and the result say the same."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from bench.digit_task import write_task
from bench.mismatch import (
    PAGE,
    RESULT,
    ROOT,
    SCHEDULE,
    SETTINGS,
    Name,
    name_of,
    parse,
    recorded,
    runnable_cases,
    wanted,
    written,
)
from bench.mismatch_page import accuracies, differences, essence, gap, gaps, not_run, page, read
from core.checks import check_run_file
from core.doors import SCHEDULE as DOOR
from tests.support.loop_fakes import Fakes
from tests.support.step_samples import write_run

READ = yaml.safe_load(SETTINGS.read_text(encoding="utf-8"))
TOY: dict[str, Any] = {
    "run": {"eval": {"interval": 5}},
    "seeds": [1],
    "cases": {
        "same": {"with": ["none", "tis", "icepop"]},
        "old": {"beside": "same", "with": ["none", "tis", "icepop"]},
        "bf16": {"beside": "same", "with": ["none"]},
        "fp8": {"beside": "same", "with": ["none"], "needs": "a GPU"},
    },
    "corrections": {"none": {}, "tis": {}, "icepop": {}},
}


def a_run(case: str, correction: str, accuracy: float, seed: int = 1) -> dict[str, Any]:
    figures = {"gap": [0.1, 0.3], "engine_kl": [0.01, 0.03], "ess": [0.5, 1.0], "clipped": [0.0, 0.25]}
    rates = [0.0, accuracy, accuracy]
    return {"case": case, "correction": correction, "seed": seed, "seconds": 1.0, "accuracy": rates, **figures}


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_task(tmp_path_factory.mktemp("task"), seed=0)


@pytest.mark.parametrize("name", wanted((), [1], READ), ids=str)
def test_each_is_a_run_file_without_mistakes(name: Name, task: Path) -> None:
    file = task / "run.yaml"
    file.write_text(yaml.safe_dump(written(name, READ, task)))
    config = check_run_file(file)
    assert config.placement.schedule_options.get("steps", 0) == READ["cases"][name.case]["steps_behind"]


def test_names_choose_cases_and_corrections() -> None:
    assert wanted(["old", "same/tis"], [1, 2], TOY) == [
        Name(case, one, seed)
        for seed in (1, 2)
        for case, one in (("same", "tis"), ("old", "none"), ("old", "tis"), ("old", "icepop"))
    ]
    assert len(wanted((), [1], TOY)) == 7


def test_a_case_that_cannot_run_here_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["fp8"], TOY)
    assert "found fp8; wanted of same, old, bf16, same/none" in capsys.readouterr().err
    assert not_run({"settings": TOY}) == "- `fp8`: not run: it needs a GPU.\n"


def test_samples_are_some_steps_old() -> None:
    """The first steps learn from samples of the first weights, and no row is drawn for a step behind the last."""
    fakes = Fakes()
    assert DOOR.build(f"{SCHEDULE}:run", {"steps": 1})(fakes.parts) is True
    asked = [call for call in fakes.calls if call.startswith(("push", "generate", "stepped"))]
    assert asked == [
        *("push step0", "generate train/0 step0", "generate train/1 step0", "stepped 0"),
        *("push step1", "stepped 1", "push step2"),
    ]
    assert [samples[0].logprobs_old for samples in fakes.updated] == [None, None]
    assert [call for call in fakes.calls if call.startswith("evaluate ")] == ["evaluate 0 step0", "evaluate 2 step2"]


def test_a_gap_is_told_of_tokens_that_count() -> None:
    old, engine = np.log([0.5, 0.2, 0.9], dtype=np.float32), np.log([0.25, 0.4, 0.1], dtype=np.float32)
    found = gap(old, engine, np.array([1, 1, 0], dtype=np.uint8))
    assert found["gap"] == pytest.approx(math.log(2))
    assert found["engine_kl"] == pytest.approx((2 - 1 - math.log(2) + 0.5 - 1 + math.log(2)) / 2)
    assert found["ess"] == pytest.approx(1.25**2 / 2.125)


def test_figures_of_a_run_are_read(tmp_path: Path) -> None:
    """Of the stored steps, whose trainer is 0.01 below the engine, and of what the run itself has logged."""
    write_run(tmp_path, [0, 1])
    logged = [{}, {"train/tis_clipfrac": 0.5}]
    events = [{"event": "step", "step": step, "metrics": metrics} for step, metrics in enumerate(logged)]
    events.append({"event": "eval", "step": 2, "results": {"digits": {"accuracy": 0.25}}})
    (tmp_path / "progress.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    found = read(tmp_path)
    assert found == {
        "accuracy": [0.25],
        "gap": [0.01, 0.01],
        "engine_kl": [5e-5, 5e-5],
        "ess": [1.0, 1.0],
        "clipped": [0.0, 0.5],
    }


def test_a_new_run_takes_the_place_of_the_old() -> None:
    old, new, other = a_run("old", "tis", 0.2), a_run("old", "tis", 0.4), a_run("same", "none", 0.8, seed=2)
    gone = a_run("no longer", "tis", 0.2)
    found = recorded([old, gone], [new, other], TOY)
    assert found["runs"] == [new, other]
    assert found["missing"] == [
        "same-none-1",
        "same-tis-1",
        "same-icepop-1",
        "old-none-1",
        "old-icepop-1",
        "bf16-none-1",
    ]


def test_what_is_lost_and_brought_back_is_told() -> None:
    plain = {"same": 0.8, "old": 0.4, "bf16": 0.8}
    runs = [a_run(case, "none", value) for case, value in plain.items()] + [a_run("old", "tis", 0.6)]
    runs += [a_run("same", "none", 0.9, seed=2), a_run("old", "none", 0.7, seed=2)]
    record = {"settings": TOY, "runs": runs}
    assert differences(record).splitlines()[2:] == [
        "| `old` | +0.40, +0.20 below `same` | +0.20, – | –, – |",
        "| `bf16` | +0.00 below `same` | – | – |",
    ]
    assert "| `old`, over the run | 0.55 (0.40 to 0.70) | 0.60 | – |" in accuracies(record)
    assert "| `old` | `tis` | 0.2000 | 0.02000 | 0.75 | 0.125 |" in gaps(record)
    assert "| `old` | `none` | 0.2000 | 0.02000 | 0.75 | – |" in gaps(record)


def test_the_manual_has_its_essence() -> None:
    record = json.loads(RESULT.read_text(encoding="utf-8"))
    assert essence(record) in (ROOT / "docs" / "algorithms.md").read_text(encoding="utf-8")


def test_the_page_is_made_of_the_result() -> None:
    record = json.loads(RESULT.read_text(encoding="utf-8"))
    assert PAGE.read_text(encoding="utf-8") == page(record)
    assert record["settings"] == READ
    known = ["-".join(map(str, name_of(run))) for run in record["runs"]]
    assert {*known, *record["missing"]} == {"-".join(map(str, name)) for name in wanted((), READ["seeds"], READ)}
    assert {run["case"] for run in record["runs"]} == set(runnable_cases(READ))
    assert RESULT.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
