"""The door for sinks of metrics: `logging.sinks` of a run file."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from core.checks import check_run_file
from core.config import dump_run_file, load_run_file
from core.config.sections.logging import SinkConfig
from core.sinks.fan_out import FanOut, wanted_sinks
from core.sinks.sink import RunInfo, ShownSample
from tests.support.door_files import SINKS, example
from tests.support.good_run import write_run
from tests.support.waiting import COMMAND_S

MORE_SINKS = """
class Late(Lines):
    def __init__(self):
        raise OSError("no such server")


class NoEnd:
    def begin(self, run): ...
    def step(self, step, metrics): ...
    def evaluation(self, step, results): ...


def function(step):
    return step
"""


def sinks_file(folder: Path) -> Path:
    (folder / "mine.py").write_text(SINKS + MORE_SINKS)
    return folder / "mine.py"


CASES: dict[str, tuple[str, list[str]]] = {
    "unknown": (
        "[tensorbord]",
        [
            "logging.sinks.0.name: found 'tensorbord'; wanted one of tensorboard, wandb, or module.py:function or "
            "package.module:function: did you mean tensorboard?"
        ],
    ),
    "a function": (
        "[mine.py:function]",
        [
            "logging.sinks.0.name: found the function function of DIR/mine.py; wanted a class with begin, step, "
            "evaluation, end: make it a class"
        ],
    ),
    "without end": (
        "[tensorboard, mine.py:NoEnd]",
        [
            "logging.sinks.1.name: found NoEnd of DIR/mine.py without end; wanted a class with begin, step, "
            "evaluation, end: define what is missing"
        ],
    ),
    "no such class": (
        "[mine.py:Line]",
        [
            "logging.sinks.0.name: found no Line in DIR/mine.py; wanted a function defined or imported there: "
            "did you mean Lines?"
        ],
    ),
    "no such option": (
        "[{name: mine.py:Lines, options: {path: a}}]",
        [
            "logging.sinks.0.options: found the option path; wanted an option of DIR/mine.py:Lines: file: "
            "remove or correct it"
        ],
    ),
    "no name": (
        "[{options: {}}]",
        [
            "logging.sinks.0.name: found nothing; wanted text: add name (tensorboard, wandb, or module.py:Class / "
            "package.module:Class of your own)"
        ],
    ),
    "no list": (
        "tensorboard",
        ["logging.sinks: found 'tensorboard'; wanted a list of mappings of keys: write [tensorboard]"],
    ),
    "not installed": (
        "[wandb]",
        [
            "logging.sinks.0.name: found wandb, and no package wandb; wanted the package wandb, which wandb works "
            "with: pip install wandb"
        ],
    ),
    "two good ones": ("[tensorboard, {name: mine.py:Lines, options: {file: a}}]", []),
    "none": ("[]", []),
}


@pytest.mark.parametrize(("sinks", "said"), CASES.values(), ids=CASES)
def test_what_is_wrong_with_a_sink_is_said_before_the_run(
    sinks: str, said: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.checks.doors.installed", lambda package: False)
    sinks_file(tmp_path)
    found: list[str] = []
    try:
        check_run_file(write_run(tmp_path), [f"logging.sinks={sinks}"])
    except ValueError as error:
        found = [line.partition(f"{sinks}: ")[2].replace(str(tmp_path), "DIR") for line in str(error).splitlines()[1:]]
    assert found == said


@pytest.mark.parametrize(
    ("overrides", "names"),
    [
        ((), ["tensorboard"]),
        (("logging.tensorboard=true",), ["tensorboard"]),
        (("logging.tensorboard=false",), []),
        (("logging.sinks=[wandb]",), ["wandb"]),
        (("logging.sinks=[wandb]", "logging.tensorboard=true"), ["tensorboard", "wandb"]),
        (("logging.sinks=[wandb, tensorboard]", "logging.tensorboard=false"), ["wandb"]),
    ],
    ids=["default", "old on", "old off", "other", "old on beside another", "old off beside another"],
)
def test_the_older_key_means_the_sink_tensorboard(overrides: Sequence[str], names: list[str], tmp_path: Path) -> None:
    config = load_run_file(write_run(tmp_path), overrides)
    assert [sink.name for sink in wanted_sinks(config.logging)] == names
    dump_run_file(config, tmp_path / "resolved.yaml")
    assert load_run_file(tmp_path / "resolved.yaml") == config


def run_info(folder: Path, first_step: int = 0) -> RunInfo:
    return RunInfo("a run", folder, first_step, 4, {"train": {"lr": 0.5}})


def sink(name: str, **options: Any) -> SinkConfig:
    return SinkConfig(name=name, options=options)


def test_the_pages_example(tmp_path: Path) -> None:
    run_file = write_run(tmp_path)
    (tmp_path / "csv_sink.py").write_text(example("Sinks of metrics"))
    sinks = "[{name: csv_sink.py:Csv, options: {names: [train/loss]}}]"
    told = FanOut(check_run_file(run_file, [f"logging.sinks={sinks}"]).logging.sinks, run_info(tmp_path))
    for step in range(2):
        told.step(step, {"train/loss": 0.5 + step, "other": 1.0})
    told.end()
    assert (tmp_path / "steps.csv").read_text().splitlines() == ["0,0.5", "1,1.5"]


def test_sinks_that_raise_are_logged_once_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    mine = sinks_file(tmp_path)
    told = FanOut([sink(f"{mine}:Late"), sink(f"{mine}:Raises", file="r"), sink(f"{mine}:Lines")], run_info(tmp_path))
    with caplog.at_level(logging.WARNING):
        for step in range(3):
            told.step(step, {"train/loss": 1.0})
        told.end()
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [record.getMessage() for record in errors] == [
        f"sink={mine}:{name} failed; the run goes on, and further failures are counted" for name in ("Late", "Raises")
    ]
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == [
        f"sink={mine}:Late failures=1: some metrics are missing there",
        f"sink={mine}:Raises failures=3: some metrics are missing there",
    ]
    kinds = [json.loads(line)[0] for line in (tmp_path / "lines.jsonl").read_text().splitlines()]
    assert kinds == ["begin", "step", "step", "step", "end"]
    assert [json.loads(line)[0] for line in (tmp_path / "r").read_text().splitlines()] == ["begin", "end"]


def test_tensorboard_hides_what_an_earlier_attempt_told_of_steps_that_are_repeated(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for first_step, loss in ((0, 1.0), (2, 5.0)):
        told = FanOut([sink("tensorboard")], run_info(tmp_path, first_step))
        told.evaluation(first_step, {"held_out": {"accuracy": 0.5, "pass@2": 0.75}})
        for step in range(first_step, 4):
            told.step(step, {"train/loss": loss + step})
        told.end()
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    assert [(point.step, point.value) for point in board.Scalars("train/loss")] == [(0, 1), (1, 2), (2, 7), (3, 8)]
    assert [(point.step, point.value) for point in board.Scalars("eval/held_out")] == [(0, 0.5), (2, 0.5)]
    assert [point.value for point in board.Scalars("eval/held_out-pass@2")] == [0.75, 0.75]


def shown(response: str, reward: float | None = 1.0) -> ShownSample:
    return ShownSample(0, 1, reward, False, "" if reward is not None else "it hung", "2 + 2 =", response)


def test_samples_are_told_to_those_sinks_that_show_some(tmp_path: Path) -> None:
    (tmp_path / "csv_sink.py").write_text(example("Sinks of metrics"))
    told = FanOut([sink(f"{tmp_path}/csv_sink.py:Csv"), sink(f"{sinks_file(tmp_path)}:Lines")], run_info(tmp_path))
    told.samples(3, [shown("4")])
    told.end()
    assert told._failures == {}
    lines = [json.loads(line) for line in (tmp_path / "lines.jsonl").read_text().splitlines()]
    assert lines[1] == ["samples", 3, [[0, 1, 1.0]]]


def test_tensorboard_has_samples_and_settings_as_text(tmp_path: Path) -> None:
    """What a model says is text there, whatever it says."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    told = FanOut([sink("tensorboard")], run_info(tmp_path))
    told.samples(2, [shown("<script>alert(1)</script> | **4**\nand more"), shown("", None)])
    told.end()
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    [settings], [samples] = (board.Tensors(f"{name}/text_summary") for name in ("run_file", "samples"))
    assert settings.tensor_proto.string_val[0].decode() == "    train:\n      lr: 0.5"
    table = samples.tensor_proto.string_val[0].decode().splitlines()
    assert (samples.step, table[0]) == (2, "| group | index | reward | prompt | response |")
    assert table[2] == (
        "| 0 | 1 | 1 | 2 + 2 = | &lt;script&gt;alert(1)&lt;/script&gt; &#124; &#42;&#42;4&#42;&#42;<br>and more |"
    )
    assert table[3] == "| 0 | 1 | it hung | 2 + 2 = |  |"


WANDB = """
import os, sys
from pathlib import Path
from core.config.sections.logging import SinkConfig
from core.sinks.fan_out import FanOut
from core.sinks.sink import RunInfo, ShownSample
told = FanOut([SinkConfig(name="wandb", options={"project": "p", "tags": ["a"]})],
              RunInfo("a run", Path(sys.argv[1]), 0, 2, {"train": {"lr": 0.5}}))
told.evaluation(0, {"held_out": {"accuracy": 0.5}})
told.step(0, {"train/loss": 1.5})
told.step(1, {"train/loss": 0.5})
told.samples(1, [ShownSample(0, 1, 1.0, False, "", "2 + 2 =", "4")])
told.end()
"""


def records(data: bytes) -> Iterator[bytes]:
    """Of wandb's file: LevelDB's log format behind a header of 7 bytes."""
    place, record = 7, b""
    while place < len(data):
        left = 32768 - place % 32768  # of the block; a header of 7 bytes is not split over two
        if left >= 7:
            size, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
            record = (
                data[place + 7 : place + 7 + size] if kind in (1, 2) else record + data[place + 7 : place + 7 + size]
            )
            if kind in (1, 4):
                yield record
        place += 7 + size if left >= 7 else left


@pytest.mark.skipif(find_spec("wandb") is None, reason="the package wandb is not installed")
@pytest.mark.parametrize("mode", ["", "offline"])
def test_wandb_keeps_a_run_offline(mode: str, tmp_path: Path) -> None:
    from wandb.proto import wandb_internal_pb2

    env = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    run_dir = tmp_path / "a run:1"
    run_dir.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", WANDB, str(run_dir)],
        env={**env, **({"WANDB_MODE": mode} if mode else {})},
        capture_output=True,
        text=True,
        timeout=COMMAND_S,
    )
    assert done.returncode == 0, done.stderr
    assert "failed; the run goes on" not in done.stderr
    [file] = (run_dir / "wandb").glob("offline-run-*/*.wandb")
    rows, names = [], []
    for data in records(file.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") == "history":
            rows.append(
                {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            )
        if record.WhichOneof("record_type") == "run":
            names.append((record.run.run_id, record.run.project, record.run.display_name, list(record.run.tags)))
    assert names[0] == ("a-run-1", "p", "a run", ["a"])
    assert [row["samples/nrows"] for row in rows if "samples/nrows" in row] == [1]
    own = [{name: value for name, value in row.items() if not name.startswith(("_", "samples/"))} for row in rows]
    assert own == [{"eval/held_out": 0.5, "train/loss": 1.5}, {"train/loss": 0.5}]
