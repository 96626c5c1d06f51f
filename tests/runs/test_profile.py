"""`ebbtide profile` on a run of two trainer ranks and a real engine, as the page has it, and on one without engines."""

from __future__ import annotations

import gzip
import json
import shlex
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from launchers.traces.merge import PIDS_PER_RANK
from tests.runs.test_sft import write_sft
from tests.support.tiny_runs import ebbtide, events, losses, write_run
from tests.test_docs import commands

NAMES = ["sync", "rollout", "score", "update"]
ROUNDING_US = 0.01  # a trace has three digits behind the microsecond


@pytest.mark.run
def test_a_traced_step_is_the_runs_own_and_its_phases_add_up(tmp_path: Path) -> None:
    (line,) = [shlex.split(one)[1:] for one in commands() if one.startswith("ebbtide profile ")]
    assert line == ["profile", "examples/smollm2-arithmetic.yaml", "--step", "2"]
    run_file, out = write_run(tmp_path, placement={"device": "cpu", "trainers_per_node": 2}), tmp_path / "out"
    done = ebbtide("profile", str(run_file), *line[2:], "--run-dir", str(out))
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(losses(out)) == [0, 1, 2]
    assert [path.name for path in (out / "profile").iterdir()] == ["trace.json.gz"]
    assert not (out / "checkpoints").exists() or not list((out / "checkpoints").iterdir())
    with gzip.open(out / "profile" / "trace.json.gz", "rt") as file:
        trace = json.load(file)["traceEvents"]
    titles = {one["pid"]: one["args"]["name"] for one in trace if one["name"] == "process_name"}
    assert titles == {0: "trainer 0", PIDS_PER_RANK: "trainer 1"}
    for pid in titles:
        refuse_misfit([one for one in trace if one["pid"] == pid])
    (told,) = [one["metrics"] for one in events(out, "step") if one["step"] == 2]
    (step,) = [one for one in trace if one["name"] == "step 2" and one["pid"] == 0]
    assert told["perf/step_time"] * 1e6 <= step["dur"] + ROUNDING_US, "a range holds all that the phase was timed with"
    for word in (*NAMES, "between phases", "step 2: ", "2 trainer ranks"):
        assert word in done.stdout
    # nobody traces a replay: the losses are those of steps that are not traced, to the last bit
    again = ebbtide("replay", str(out), "--step", "2", "--run-dir", str(tmp_path / "again"))
    assert again.returncode == 0, again.stdout + again.stderr
    assert losses(tmp_path / "again") == losses(out)


@pytest.mark.run
def test_a_run_without_engines_has_a_trace_that_is_cut_where_it_is_asked_to_be(tmp_path: Path) -> None:
    done = ebbtide(
        "profile", str(write_sft(tmp_path)), "--step", "1", "--events", "200", "--run-dir", str(tmp_path / "out")
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "trainer 0: the trace has the 200 longest of" in done.stderr
    with gzip.open(tmp_path / "out" / "profile" / "trace.json.gz", "rt") as file:
        spans = [one for one in json.load(file)["traceEvents"] if one["ph"] == "X"]
    assert len(spans) == 200
    phases = [one["name"].removeprefix("phase ") for one in spans if one["name"].startswith("phase ")]
    assert sorted(phases) == sorted(NAMES)


def refuse_misfit(trace: list[dict[str, Any]]) -> None:
    """Assert that a rank's phases fill its step, but for what lies between them, and that an update has operators."""
    found = [one for one in trace if one["ph"] == "X" and one["name"].startswith("phase ")]
    ranges = sorted(found, key=lambda one: float(one["ts"]))
    assert [one["name"].removeprefix("phase ") for one in ranges] == NAMES
    (step,) = [one for one in trace if one["name"] == "step 2"]
    # what is no phase lies between two of them, before the first or after the last: from the same clock, to its digits
    edges = [step["ts"], *(edge for one in ranges for edge in (one["ts"], one["ts"] + one["dur"]))]
    edges.append(step["ts"] + step["dur"])
    gaps = sum(later - sooner for sooner, later in zip(edges[::2], edges[1::2], strict=True))
    assert edges == sorted(edges)
    assert sum(one["dur"] for one in ranges) + gaps == pytest.approx(step["dur"], abs=len(edges) * ROUNDING_US)
    assert {"aten::mm", "aten::embedding"} <= operators_within(trace, ranges)["phase update"]
    assert [one for one in trace if one["name"].startswith("bucket of ") and one["ph"] == "X"]


def operators_within(trace: list[dict[str, Any]], ranges: list[dict[str, Any]]) -> dict[str, set[str]]:
    """Phase -> names of the operators that began in it."""
    found = defaultdict(set)
    for one in trace:
        for phase in ranges:
            if one.get("cat") == "cpu_op" and phase["ts"] <= one["ts"] < phase["ts"] + phase["dur"]:
                found[phase["name"]].add(one["name"])
    return found
