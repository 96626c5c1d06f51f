"""What the page of `ebbtide report` is made of, as values: verdict, curves, phases, memory, samples, settings."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from scipy.stats import binomtest

from core.run_dir.attempt_folder import AttemptFolder
from core.run_dir.run_directory import RunDirectory
from core.samples import Status
from core.trajectory import step_path, write_step
from launchers.report.curves import MOST_POINTS, charts, interval
from launchers.report.drawing import draw
from launchers.report.memory import memory_by_phase
from launchers.report.phases import MOST_STEPS, SHOWN_STEPS, step_times, time_line, totals
from launchers.report.run_facts import Span, read_run, spans
from launchers.report.samples import MOST_TURNS, choose_samples, fitted
from launchers.report.settings import chosen, differing, flat
from launchers.report.verdict import state_word, verdict
from launchers.report.words import time_words
from tests.support.histories import began, ended, lines
from tests.support.report_runs import PHASES, SETTINGS, events, write_report_run
from tests.support.step_samples import make_record, make_samples


@pytest.mark.parametrize(
    ("ledger", "state", "says"),
    [
        ([], "not started", "Not started yet: the ledger has no attempt."),
        ([began(1)], "running", "Under way by its ledger, in job 7: 3 of 9 steps done; `ebbtide status` asks Slurm."),
        ([began(1, job=None)], "lost", "Lost, or under way on n1: 3 of 9 steps done, and nothing wrote how it ended."),
        ([began(1), ended(1, "timeout")], "paused", "Saved at the time limit: 3 of 9 steps done (one attempt, 8 min"),
        (
            [began(1), ended(1, "preempted"), began(2), ended(2, "interrupted")],
            "interrupted",
            "Stopped by somebody: 3 of 9 steps done (2 attempts, 16 min 40 s in all).",
        ),
        (
            [began(1), ended(1, "failed", cause="trainer 0 failed: ValueError: no.\nmore")],
            "failed",
            "Attempt 1 failed with 3 of 9 steps done: trainer 0 failed: ValueError: no.",
        ),
        ([began(1), ended(1, "node_failure")], "failed", "Attempt 1 lost a node with 3 of 9 steps done."),
    ],
)
def test_verdicts(tmp_path: Path, ledger: list[dict[str, Any]], state: str, says: str) -> None:
    directory = write_report_run(tmp_path, 3, 9, stored=0)
    lines(directory.ledger, ledger)
    run = read_run(directory)
    assert state_word(run) == state
    assert verdict(run).startswith(says)


def rewards(values: list[float]) -> list[dict[str, Any]]:
    return [
        {"event": "step", "time": 1.0, "step": step, "metrics": {"rollout/raw_reward": value}}
        for step, value in enumerate(values)
    ]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ([0.1, 0.9], "Reward rose from 0.1 to 0.9."),
        ([0.5 + 0.1 * (-1) ** step for step in range(40)], "Reward stayed at about 0.5."),
        ([0.9 - step / 100 + 0.01 * (-1) ** step for step in range(60)], "Reward fell from 0.875 to 0.335."),
        ([0.5], ""),
    ],
    ids=["two steps", "noise", "a slope with noise", "one step"],
)
def test_what_was_learnt(tmp_path: Path, values: list[float], says: str) -> None:
    directory = write_report_run(tmp_path, 1, stored=0)
    lines(directory.progress, rewards(values))
    assert verdict(read_run(directory)).partition("in all). ")[2] == says


@pytest.mark.parametrize(("right", "number"), [(0, 20), (1, 20), (20, 20), (87, 200), (1, 1)])
def test_error_bars_are_wilsons(right: int, number: int) -> None:
    wanted = binomtest(right, number).proportion_ci(0.95, "wilson")
    assert interval(right / number, number) == pytest.approx((wanted.low, wanted.high), abs=1e-4)


def test_a_long_curve_is_drawn_as_means(tmp_path: Path) -> None:
    directory = write_report_run(tmp_path, 1, stored=0)
    lines(directory.progress, rewards([float(step % 3) for step in range(3 * MOST_POINTS)]))
    (chart,) = charts([read_run(directory)])[0] or charts([read_run(directory)])[1] or [None]
    assert chart is None  # means of three adjacent steps are all 1: a curve that never changes
    assert charts([read_run(directory)])[2] == ["Reward: 1"]
    lines(directory.progress, rewards([float(step) for step in range(3 * MOST_POINTS)]))
    (chart,) = charts([read_run(directory)])[0]
    assert chart is not None
    assert chart.series[0].values[:2] == (1.0, 4.0)
    assert chart.series[0].steps[-1] == 3 * MOST_POINTS - 2
    assert "each point a mean of several steps" in chart.note


def test_a_metric_that_only_some_steps_have_is_drawn_where_it_is(tmp_path: Path) -> None:
    directory = write_report_run(tmp_path, 4)
    told = events(4, 4)
    for event in told:
        if event["event"] == "step" and event["step"] % 2:
            del event["metrics"]["rollout/response_len/max"]
            del event["metrics"]["train/entropy_loss"]
    lines(directory.progress, told)
    by_title = {chart.title: chart.series[0] for chart in charts([read_run(directory)])[0]}
    assert by_title["Entropy"].steps == (0, 2)
    assert by_title["Response length"].low == by_title["Response length"].high == ()


def test_means_of_an_evaluation_are_no_shares_of_its_prompts(tmp_path: Path) -> None:
    directory = write_report_run(tmp_path, 4)
    told = events(4, 4)
    for event in told:
        if event["event"] == "eval":
            event["results"]["kept_out"] |= {"response_len": 0.5 + event["step"], "turns/mean": 0.25 * event["step"]}
            event["results"]["kept_out"] |= {
                "reward/brief": 0.1 * event["step"],
                "truncated_ratio": 0.1 * event["step"],
            }
    lines(directory.progress, told)
    found = {chart.title: chart for chart in charts([read_run(directory)])[0] if chart.title.startswith("Evaluation")}
    assert {
        title.removeprefix("Evaluation: "): (chart.note, bool(chart.series[0].low)) for title, chart in found.items()
    } == {
        "accuracy": ("error bars: 95 % for the number of prompts", True),
        "truncated_ratio": ("error bars: 95 % for the number of prompts", True),
        "response_len": ("tokens, mean over the samples", False),
        "turns/mean": ("of the model, mean over the samples", False),
        "reward/brief": ("mean over the samples", False),
    }


def test_the_drawing_takes_its_colours_from_the_page(tmp_path: Path) -> None:
    svg = draw(charts([read_run(write_report_run(tmp_path))])[0][0])
    assert svg.startswith('<svg aria-hidden="true" focusable="false" viewBox="0 0 302.4 151.2"')
    assert "var(--c0)" in svg
    assert "#0000" not in svg
    assert "<metadata" not in svg
    assert len(svg) < 15_000


def test_phases_end_where_the_next_event_begins() -> None:
    told = [
        {"event": "phase", "time": 10.0, "phase": "eval", "step": 0},
        {"event": "eval", "time": 12.0, "step": 0, "results": {}},
        {"event": "phase", "time": 13.0, "phase": "rollout step=0"},
        {"event": "begin", "time": 50.0, "step": 0, "num_steps": 2},
        {"event": "phase", "time": 60.0, "phase": "sync", "step": 0},
        {"event": "phase", "time": 59.0, "phase": "rollout", "step": 0},
    ]
    assert list(spans(told)) == [
        Span("eval", 0, 10.0, 13.0),
        Span("rollout", 0, 13.0, 50.0),
        Span("sync", 0, 60.0, 60.0),
    ]


def test_time_by_phase(tmp_path: Path) -> None:
    run = read_run(write_report_run(tmp_path, 30, stored=0))
    assert step_times(run)[7].seconds == PHASES
    assert [(one.phase, one.seconds, round(one.share, 3)) for one in totals(run)][:2] == [
        ("rollout", 180.0, 0.571),
        ("update", 90.0, 0.286),
    ]
    bars = time_line(run)
    assert len(bars) == SHOWN_STEPS * len(PHASES)
    assert (bars[0].began, bars[1].began, bars[-1].phase) == (0.0, 1.0, "update")


def test_times_of_a_long_run_are_thinned_out(tmp_path: Path) -> None:
    assert len(step_times(read_run(write_report_run(tmp_path, MOST_STEPS * 2 + 1, stored=0)))) == MOST_STEPS - 99


def test_memory_is_the_largest_over_attempts(tmp_path: Path) -> None:
    directory = write_report_run(tmp_path)
    later = AttemptFolder(directory.attempt(2)).trainer_log(0)
    later.parent.mkdir()
    later.write_text("INFO phase=sync step=0 seconds=1.658 peak_rss_gib=9.00\nINFO phase=odd step=0 nonsense")
    found = {one.phase: (one.host, one.gpu, one.planned) for one in memory_by_phase(directory)}
    assert found == {"sync": (9.0, None, None), "update": (3.78, 41.5, 60.25)}


def test_the_log_lines_are_those_that_are_written(caplog: pytest.LogCaptureFixture) -> None:
    from core.loop.phases import Phases
    from launchers.report.memory import GPU, HOST

    with caplog.at_level("INFO"), Phases(lambda _: None)("update", 3):
        pass
    assert HOST.search(caplog.text)
    source = (Path(__file__).parents[3] / "core" / "residency" / "machine.py").read_text()
    form = source[source.index('"residency=') : source.index("holds=%r")].strip('"')
    assert GPU.search(form % ("update", 3, 0.1, "1.00", "2.00", "3.00", "4.00", "5.00", "6.00"))


def scored(rewards: list[float | None]) -> list[Any]:
    samples = make_samples(1, len(rewards))
    for sample, reward in zip(samples, rewards, strict=True):
        sample.reward, sample.status = reward, Status.COMPLETED
        sample.failure = "why not" if reward is None else None
    return samples


@pytest.mark.parametrize(
    ("rewards", "kinds"),
    [
        ([0.0, 1.0, 0.5, 0.25, None], {"best": [1, 2], "worst": [0, 3], "failed": [4]}),
        ([1.0, 1.0, 1.0], {"best": [2, 1]}),
        ([0.0, 1.0], {"best": [1, 0]}),
        ([None, None, None], {"failed": [0, 1]}),
        ([], {}),
    ],
    ids=["all kinds", "all alike", "two", "all failed", "none"],
)
def test_which_samples_are_shown(tmp_path: Path, rewards: list[float | None], kinds: dict[str, list[int]]) -> None:
    write_step(step_path(tmp_path, 0), make_record(scored(rewards), 0))
    notes: list[str] = []
    shown = choose_samples(RunDirectory(tmp_path), [0], 1.0, notes)
    found: dict[str, list[int]] = {}
    for sample in shown:
        for kind in sample.kinds:
            found.setdefault(kind, []).append(int(sample.facts["group"].rpartition(" ")[2]))
    assert (found, notes) == (kinds, [])


def test_the_turns_of_a_dialogue(tmp_path: Path) -> None:
    (sample,) = scored([1.0])
    sample.response_tokens, sample.loss_mask = [1, 2, 3, 4, 5], [1, 1, 0, 0, 1]
    sample.logprobs_engine = [-1.0, -2.0, 0.0, 0.0, -0.25]
    write_step(step_path(tmp_path, 0), make_record([sample], 0))
    (shown,) = choose_samples(RunDirectory(tmp_path), [0], 1.0, [])
    assert [(turn.author, turn.num_tokens, turn.logprob) for turn in shown.turns] == [
        ("model", 2, -1.5),
        ("environment", 2, None),
        ("model", 1, -0.25),
    ]


def test_turns_without_number_are_shortened(tmp_path: Path) -> None:
    (sample,) = scored([1.0])
    sample.response_tokens, sample.loss_mask = [1] * 1000, [1, 0] * 500
    sample.logprobs_engine = [-1.0] * 1000
    write_step(step_path(tmp_path, 0), make_record([sample], 0))
    (shown,) = choose_samples(RunDirectory(tmp_path), [0], 1.0, [])
    assert len(shown.turns) == MOST_TURNS + 1
    assert (shown.turns[-1].author, shown.turns[-1].num_tokens) == (f"{1000 - MOST_TURNS} more", 1000 - MOST_TURNS)


@pytest.mark.parametrize("text", ["", "short", "ü" * 1000, "<" * 3000, "a" * 10_000])
def test_a_text_is_cut_in_its_middle_to_the_bytes_of_the_page(text: str) -> None:
    from markupsafe import escape

    shown = fitted(text, 2000)
    assert len(str(escape(shown)).encode()) <= 2100
    assert (shown == text) == (len(str(escape(text)).encode()) <= 2000)
    assert shown[:5] == text[:5]
    assert shown[-5:] == text[-5:]


def test_settings_that_a_person_chose_and_those_that_differ() -> None:
    one = flat({**SETTINGS, "train": {"lr": 1e-5, "adam_beta1": 0.9, "clip_grad": 2.0}})
    assert chosen(one)["train.clip_grad"] == 2.0
    assert "train.adam_beta1" not in chosen(one)
    assert chosen(one)["train.lr"] == 1e-5
    assert differing([one, {**one, "train.lr": 1e-6, "x": None}]) == {
        "train.lr": ["1e-05", "1e-06"],
        "x": ["—", "null"],
    }


def test_defaults_are_seen_in_a_resolved_run_file(tmp_path: Path) -> None:
    from core.config import dump_run_file, load_run_file
    from tests.support.good_run import write_run

    given = write_run(tmp_path)
    dump_run_file(load_run_file(given), tmp_path / "resolved.yaml")
    resolved = chosen(flat(yaml.safe_load((tmp_path / "resolved.yaml").read_text())))
    written = flat(yaml.safe_load(given.read_text()))
    assert set(resolved) <= set(written)


def test_secrets_of_a_run_file_are_not_shown() -> None:
    environment = {"WANDB_API_KEY": "abc", "HOME": "/h", "URL": "https://me:secret@host/x"}
    shown = flat({"slurm": {"environment": environment}, "data": {"prompt_key": "question"}})
    assert shown == {
        "slurm.environment.WANDB_API_KEY": "(hidden)",
        "slurm.environment.HOME": "/h",
        "slurm.environment.URL": "https://(hidden)@host/x",
        "data.prompt_key": "question",
    }


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (-3, "0 s"),
        (12.34, "12.3 s"),
        (99.4, "99.4 s"),
        (99.6, "1 min 40 s"),
        (3600, "60 min"),
        (6000, "1 h 40 min"),
        (400_000, "4 d 15 h"),
    ],
)
def test_times_in_words(seconds: float, words: str) -> None:
    assert time_words(seconds) == words


def test_numbers_of_a_curve_are_those_that_were_logged(tmp_path: Path) -> None:
    directory = write_report_run(tmp_path, 6, stored=0)
    with directory.progress.open("a") as file:
        file.write('{"event": "step", "step": 3, "time": 1, "metrics": {"rollout/raw_reward": 7, "train/x": NaN}}\n')
    series = charts([read_run(directory)])[0][0].series[0]
    wanted = [0.2 + 0.6 * step / 5 + 0.02 * math.sin(step) for step in range(6)]
    wanted[3] = 7.0
    np.testing.assert_allclose(series.values, wanted)
