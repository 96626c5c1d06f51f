"""What `ebbtide inspect` shows of a step, and what it says when there is nothing to show."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from core.config import load_run_file
from core.loop.evaluation_samples import keep_evaluation
from core.run_dir.run_directory import RunDirectory
from core.samples import Prompt, Sample, Span, Status
from core.trajectory import list_evaluations, list_steps, step_path, write_step
from launchers.show.samples import InspectError, show
from tests.support.good_run import write_run as good_run
from tests.support.step_samples import make_record, make_samples, write_run


def shown(
    run_dir: Path,
    step: int | None = None,
    best: int | None = None,
    worst: int | None = None,
    evaluation: str | None = None,
) -> str:
    console = Console(width=160, file=io.StringIO(), record=True)
    console.print(show(run_dir, step, best, worst, evaluation=evaluation))
    return console.export_text()


def sample(index: int, reward: float | None, text: str, status: Status = Status.COMPLETED) -> Sample:
    prompt = Prompt(row=70, text="What is [3] + 4?", tokens=(1, 2), label="7")
    failure = "the reward is nan" if reward is None else None
    return Sample(0, index, prompt, [5, 6, 7], [-0.5, -0.25, -0.125], status, "3", text, reward=reward, failure=failure)


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    samples = [
        sample(0, 0.25, "second worst", Status.TRUNCATED),
        sample(1, 1.0, "right [/x]"),
        sample(2, None, "unscored", Status.FAILED),
        sample(3, 0.0, "wrong"),
    ]
    write_run(tmp_path, [0, 1, 2, 5])
    write_step(step_path(tmp_path, 7), make_record(samples, step=7, gap=0.5))
    return tmp_path


def test_a_dialogue_is_shown_turn_by_turn(tmp_path: Path) -> None:
    turns = [
        Span(0, 1, "assistant", weight_version="step6", text="call [add]"),
        Span(1, 2, "tool", text="7\x1b"),
        Span(2, 3, "assistant", 0.5, "step7", "It is 7."),
    ]
    one = sample(0, 1.0, "all of it at once")
    one.turns, one.loss_mask = turns, [1, 0, 1]
    write_run(tmp_path, [0])
    write_step(step_path(tmp_path, 7), make_record([one, sample(1, 0.0, "said at once")], step=7))
    text = shown(tmp_path)
    lines = [line.strip("│ ").split() for line in text.splitlines()]
    for words in (
        ["assistant", "call", "[add]"],
        ["1", "tokens,", "log-prob", "mean", "-0.5,", "weights", "step6"],
        ["1", "tokens"],
        ["assistant", "It", "is", "7."],
        ["1", "tokens,", "log-prob", "mean", "-0.125,", "weights", "step7,", "reward", "0.5"],
        ["response", "said", "at", "once"],
    ):
        assert words in lines, f"{words!r} not in\n{text}"
    assert "all of it at once" not in text
    assert "3 tokens, 2 of them the model's" in text


def test_last_step_with_one_best_and_one_worst(run_dir: Path) -> None:
    text = shown(run_dir)
    for words in (
        "demo, step 7 (stored: 0-2, 5, 7)",
        "4 in 1 groups",
        "mean 0.4167, min 0, max 1",
        "mean 3.0 tokens, min 3, max 3; truncated 25.0%",
        "mean 5.00e-01, max 5.00e-01",
        "1: 1 x the reward is nan",
        "best 1: group 0, sample 1, row 70",
        "What is [3] + 4?",
        "right [/x]",
        'reward 1, advantage +1.121, completed, 3 tokens, label "7"',
        "worst 1: group 0, sample 3, row 70",
    ):
        assert words in text, f"{words!r} not in\n{text}"
    assert "second worst" not in text
    assert "unscored" not in text


@pytest.mark.parametrize(
    ("best", "worst", "titles"),
    [(2, None, 2), (None, 2, 2), (0, 0, 0), (99, None, 3), (2, 2, 3)],
    ids=["best only", "worst only", "summary only", "more than there are", "none shown twice"],
)
def test_number_of_samples(run_dir: Path, best: int | None, worst: int | None, titles: int) -> None:
    assert shown(run_dir, 7, best, worst).count("group 0, sample") == titles


def test_control_characters_do_not_reach_the_terminal(tmp_path: Path) -> None:
    write_step(step_path(tmp_path, 0), make_record([sample(0, 1.0, "\x1b[2Jgone\x07\nnext")], step=0))
    text = shown(tmp_path)
    assert "\u241b[2Jgone\u2407" in text
    assert "\x1b" not in text


def test_worst_come_in_order(run_dir: Path) -> None:
    text = shown(run_dir, 7, worst=2)
    assert text.index("wrong") < text.index("second worst")


def test_step_without_any_reward_shows_why(tmp_path: Path) -> None:
    write_step(step_path(tmp_path, 0), make_record([sample(0, None, "unscored", Status.FAILED)], step=0))
    text = shown(tmp_path)
    assert "reward is nan" in text
    assert "unscored" in text


@pytest.mark.parametrize("seed", range(3))
def test_any_step_can_be_shown(tmp_path: Path, seed: int) -> None:
    write_step(step_path(tmp_path, 0), make_record(make_samples(3, 3, seed=seed), step=0))
    assert "step 0" in shown(tmp_path, best=9)


def test_step_without_samples(tmp_path: Path) -> None:
    write_step(step_path(tmp_path, 0), make_record([], step=0))
    assert "0 in 0 groups" in shown(tmp_path)


@pytest.mark.parametrize(
    ("folder", "step", "words"),
    [
        pytest.param(
            "nope", None, "nope: found no run.yaml in it; wanted a run directory: `ebbtide status`", id="no directory"
        ),
        pytest.param("fresh", None, "no steps in .*fresh yet", id="no steps"),
        pytest.param(".", 3, "step 3 is not stored in .*; wanted one of 0-2, 5, 7$", id="not stored"),
        pytest.param(".", -1, "step -1 is not stored", id="negative"),
    ],
)
def test_nothing_to_show(run_dir: Path, folder: str, step: int | None, words: str) -> None:
    (run_dir / "fresh").mkdir()
    (run_dir / "fresh" / "run.yaml").write_text("name: fresh\n")
    with pytest.raises(InspectError, match=words):
        show(run_dir / folder, step)


def test_damaged_file_is_named(run_dir: Path) -> None:
    step_path(run_dir, 7).write_bytes(b"damaged")
    with pytest.raises(InspectError, match=r"step_000007.h5 cannot be read"):
        show(run_dir)


def test_negative_number_of_samples(run_dir: Path) -> None:
    with pytest.raises(InspectError, match="best = -1"):
        show(run_dir, best=-1)


def test_a_dialogue_says_how_much_of_it_the_model_said(tmp_path: Path) -> None:
    one = sample(0, 1.0, "asked and answered")
    one.loss_mask = [1, 0, 1]
    write_step(step_path(tmp_path, 0), make_record([one], step=0))
    assert "completed, 3 tokens, 2 of them the model's, label" in shown(tmp_path)


def test_samples_of_an_evaluation_are_kept_and_shown(tmp_path: Path) -> None:
    config = load_run_file(good_run(tmp_path))
    out = tmp_path / "out"
    out.mkdir()
    RunDirectory(out).run_file.write_text("x")
    for step in (4, 10):
        keep_evaluation(out, config, "held out", step, [sample(0, 1.0, f"at {step}")], {"accuracy": 0.25})
    assert list_evaluations(out, "held out") == [4, 10]
    assert list_steps(out) == [], "steps and evaluations are told apart"
    text = shown(out, evaluation="held out")
    for words in ("held out before step 10 (stored: 4, 10)", "accuracy 0.25", "at 10", "log-probs not computed"):
        assert words in text, words
    assert "at 4" in shown(out, 4, evaluation="held out")
    with pytest.raises(InspectError, match=r"no evaluation of other in .*; wanted a set that was evaluated: held_out"):
        show(out, evaluation="other")
    with pytest.raises(InspectError, match=r"step 5 of held out is not stored in .*; wanted one of 4, 10"):
        show(out, 5, evaluation="held out")


def test_what_a_reward_was_made_of(tmp_path: Path) -> None:
    samples = [sample(0, 1.0, "right"), sample(1, 0.0, "wrong")]
    samples[0].reward_parts, samples[1].reward_parts = {"right": 1.0, "brief": 0.5}, {"right": 0.0}
    write_run(tmp_path, [0])
    write_step(step_path(tmp_path, 1), make_record(samples, step=1))
    text = shown(tmp_path)
    assert "; means of its parts: brief 0.5, right 0.5" in text
    assert "reward 1 (brief 0.5, right 1), advantage" in text
    assert "reward 0 (right 0), advantage" in text
