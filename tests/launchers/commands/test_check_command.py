"""`ebbtide check` on a tiny run: what it says of it, and its exit code."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from core.reward.sample import Score
from core.reward.trial import LABEL, NOTHING, Answer, Trial
from core.samples import Prompt
from launchers.cli import app
from launchers.show.check_report import WIDTH, fact, prompt_lines, prompts_text, reward_text
from tests.support.tiny_runs import write_run


@pytest.fixture(scope="module")
def run_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("check"), placement={"device": "cpu"})


def check(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["check", *words], env={"COLUMNS": "80"})
    return result.exit_code, result.output


def test_a_sound_run_is_told_a_fact_a_line(run_file: Path) -> None:
    code, text = check(str(run_file))
    assert code == 0, text
    assert "run         tiny: 4 steps of 4 prompts × 4 samples\n" in text
    assert "20 tensors in 1 file, F32\n" in text
    assert "machine     1 trainer rank and 1 engine on " in text
    assert "12 prompts of " in text
    assert "none too long" in text
    assert "text        | user: say one 0\n            | assistant:\n" in text
    assert "template    adds 'user: ', '\\nassistant:'\n            leaves out nothing\n" in text
    assert "on the first row of data: " in " ".join(text.split())
    assert text.endswith("no mistakes found\n")
    assert max(map(len, text.splitlines())) <= WIDTH
    assert not (run_file.parent / "runs").exists()


def test_a_reward_that_runs_programs_is_told_its_sandbox(tmp_path: Path) -> None:
    (tmp_path / "rows.py").write_text(
        "def rows():\n    for n in range(12):\n        yield {'prompt': f'f({n})', 'label': f'assert f({n}) == {n}'}\n"
    )
    data = {"source": "python", "path": "rows.py:rows", "prompt_key": "prompt"}
    reward = {"type": "code", "path": None, "timeout_s": 60}
    run_file = write_run(tmp_path, placement={"device": "cpu"}, data=data, reward=reward)
    code, text = check(str(run_file))
    assert code == 0, text
    assert "sandbox     works on this machine, by " in text


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (("rollout.num_rollouts=3",), "did you mean num_rollout?"),
        (("data.max_prompt_tokens=1",), "data.max_prompt_tokens: found 1, where the shortest prompt has "),
        (("reward={type: 'raises.py:score'}",), "KeyError: 'x' (raises.py:2 in score), called with the first row of"),
    ],
    ids=["a key", "too long", "the reward"],
)
def test_mistakes_end_it_with_1(run_file: Path, overrides: tuple[str, ...], says: str) -> None:
    (run_file.parent / "raises.py").write_text("def score(sample):\n    return sample.metadata['x']\n")
    code, text = check(str(run_file), *(word for one in overrides for word in ("--set", one)))
    assert code == 1
    assert says in text
    assert "no mistakes found" not in text


@pytest.mark.parametrize("command", ["run", "sbatch"])
def test_a_reward_that_cannot_score_is_refused_before_anything_is_made(command: str, run_file: Path) -> None:
    (run_file.parent / "raises.py").write_text("def score(sample):\n    return sample.metadata['x']\n")
    run_dir = run_file.parent / f"never-{command}"
    words = [command, str(run_file), "--run-dir", str(run_dir), "--set", "reward={type: 'raises.py:score'}"]
    result = CliRunner().invoke(app, words, env={"COLUMNS": "200"})
    assert result.exit_code == 2
    assert "KeyError: 'x' (raises.py:2 in score)" in result.output
    assert not run_dir.exists()


def test_lines_are_folded_under_themselves() -> None:
    lines = fact("note", "word " * 40).splitlines()
    assert all(len(line) <= WIDTH for line in lines)
    assert {line[:12] for line in lines} == {"note        ", " " * 12}
    assert fact("eval.sets.held_out", "12 prompts") == "eval.sets.held_out\n            12 prompts"


def test_long_prompts_are_counted_and_shown_cut() -> None:
    prompt = Prompt(0, "a\x1b[31m\n" + "b" * 2000, tuple(range(30)), None, {}, [{"role": "user", "content": "c"}])
    assert prompts_text([prompt, prompt], 20) == (
        "2 prompts of 30 tokens, 2 longer than max_prompt_tokens, 20, left out"
    )
    lines = "\n".join(prompt_lines(prompt)).splitlines()
    assert max(map(len, lines)) <= WIDTH
    assert " 23 and 6 more text | " in " ".join(" ".join(lines).split())
    assert "text        | a\\x1b[31m" in lines
    assert "            | … 20 more lines" in lines
    assert lines[-1] == "            leaves out the content of message 1 (user)"


def test_scores_are_told_with_what_was_scored() -> None:
    answers = (
        Answer("data", LABEL, Score(1.0), 0.2),
        Answer("data", NOTHING, Score(None, "ValueError: no number"), 0.0004),
    )
    assert reward_text(Trial(0.81, answers)) == (
        "data: 1 for the label, ValueError: no number for an empty response; 0.4 ms a call, ready after 0.8 s"
    )
