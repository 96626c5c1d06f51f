"""Evaluation sets with rewards of their own: what a run file says, what is refused, and what scores."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from core.checks import check_run, check_run_file
from core.checks.trial import is_own, reward_trial
from core.config import RunConfig, RunFileError, dump_run_file, load_run_file
from core.config.sections.reward import RewardConfig
from core.config.set_rewards import own_rewards, reward_of
from core.processes.user_process import WorkerStartError
from core.reward import RewardInput, RewardPool, Score
from tests.support.good_run import RUN_FILE, write_run

SETS = [
    "reward={type: exact, timeout_s: 20, overlong_buffer_tokens: 8}",
    "eval.sets.loose={path: rows.jsonl, max_prompt_tokens: 64, reward: {type: last_number}}",
    "eval.sets.mine={path: rows.jsonl, max_prompt_tokens: 64, reward: {type: 'own.py:score', options: {most: 4}}}",
]
OWN = "def score(sample, most, timeout_s=None):\n    return most * len(sample.response_text) + timeout_s\n"
SAID = RewardInput("2 + 2 =", "it is 3", label="3", num_response_tokens=32, max_response_tokens=32)


def run_with_sets(folder: Path, *overrides: str) -> RunConfig:
    path = write_run(folder)
    (folder / "own.py").write_text(OWN)
    return load_run_file(path, [*SETS, *overrides])


def test_each_set_is_scored_by_its_own_reward_and_the_others_by_the_runs(tmp_path: Path) -> None:
    config = run_with_sets(tmp_path)
    assert check_run(config) == []
    with RewardPool(config.reward, own_rewards(config)) as pool:
        found = pool.score([replace(SAID, evaluation=name) for name in ("", "held_out", "loose", "mine")])
        assert found == [Score(-1.0), Score(0.0), Score(1.0), Score(4 * len("it is 3") + 20.0)]


def test_what_a_set_does_not_say_is_the_runs(tmp_path: Path) -> None:
    config = run_with_sets(tmp_path)
    assert reward_of(config, "loose") == config.reward.model_copy(update={"type": "last_number"})
    assert reward_of(config, "held_out") == reward_of(config, "") == config.reward
    older = load_run_file(tmp_path / "run.yaml", [*SETS, "reward={type: python, path: 'own.py:score'}"])
    assert (older.reward.path, reward_of(older, "loose").path) == (f"{tmp_path}/own.py:score", None)


def test_what_is_written_is_read_again_with_absolute_paths(tmp_path: Path) -> None:
    config = run_with_sets(tmp_path, "eval.sets.text={path: rows.jsonl, reward: {type: regex, pattern: '(.)'}}")
    (tmp_path / "elsewhere").mkdir()
    dump_run_file(config, tmp_path / "elsewhere" / "run.yaml")
    assert load_run_file(tmp_path / "elsewhere" / "run.yaml") == config
    assert own_rewards(config)["mine"].type == f"{tmp_path}/own.py:score"


def test_a_resolved_file_of_an_older_run_has_the_runs_reward(tmp_path: Path) -> None:
    config = load_run_file(write_run(tmp_path))
    dump_run_file(config, tmp_path / "resolved.yaml")
    text = (tmp_path / "resolved.yaml").read_text()
    older = text.replace("      reward:\n", "").replace("      reward: null\n", "")
    assert older != text
    (tmp_path / "resolved.yaml").write_text(older)
    assert load_run_file(tmp_path / "resolved.yaml") == config


CASES = {
    "an unknown type": (
        "eval.sets.loose.reward.type=exakt",
        "eval.sets.loose.reward.type: found 'exakt'; wanted one of math",
    ),
    "a name of slime": ("eval.sets.loose.reward.type=gpqa", ": use choice"),
    "an older way": (
        "eval.sets.loose.reward.type=python",
        "eval.sets.loose.reward.type: found 'python'; wanted one of",
    ),
    "no such file": (
        "eval.sets.loose.reward.type=no.py:f",
        "eval.sets.loose.reward.type: found",
    ),
    "an option that it does not take": (
        "eval.sets.mine.reward.options={least: 1}",
        "eval.sets.mine.reward.options: found the option least; wanted an option of",
    ),
    "options of a built-in": (
        "eval.sets.loose.reward.options={a: 1}",
        "eval.sets.loose.reward.options: found the option a; wanted no options, as last_number takes none",
    ),
    "a pattern that nothing reads": (
        "eval.sets.loose.reward.pattern=a",
        "eval.sets.loose.reward.pattern: found pattern with eval.sets.loose.reward.type last_number; wanted pattern",
    ),
    "no pattern": (
        "eval.sets.loose.reward.type=regex",
        "eval.sets.loose.reward.pattern: found nothing, with eval.sets.loose.reward.type regex; wanted",
    ),
    "labels that it cannot compare with": (
        "eval.sets.loose.reward.type=choice",
        "eval.sets.loose.label_key: found '1' in row 1; wanted a letter from A to J, which eval.sets.loose.reward.type "
        "choice compares with: correct or leave out such rows, or choose another eval.sets.loose.reward.type",
    ),
    "no label": (
        "eval.sets.loose.label_key=null",
        "eval.sets.loose.label_key: found null; wanted a label_key, because eval.sets.loose.reward.type last_number",
    ),
    "no environment": (
        "eval.sets.loose.reward.type=environment",
        "eval.sets.loose.reward.type: found environment without rollout.environment; wanted one that gives rewards",
    ),
    "rows that are not the dataset's": (
        "eval.sets.loose.reward.type=reasoning_gym",
        "eval.sets.loose.source: found jsonl with eval.sets.loose.reward.type reasoning_gym; wanted reasoning_gym",
    ),
    "processes of a set": (
        "eval.sets.loose.reward.num_workers=2",
        "eval.sets.loose.reward.num_workers: found an unknown key; wanted a key of eval.sets.loose.reward: set "
        "reward.num_workers, which is the run's",
    ),
    "a time limit of a set": (
        "eval.sets.loose.reward.timeout_s=2",
        "eval.sets.loose.reward.timeout_s: found an unknown key; wanted a key of eval.sets.loose.reward: set "
        "reward.timeout_s, which is the run's",
    ),
    "an older key": (
        "eval.sets.loose.reward.path=own.py:score",
        "eval.sets.loose.reward.path: found an unknown key; wanted a key of eval.sets.loose.reward: name the function "
        "as eval.sets.loose.reward.type",
    ),
    "slime's key": ("eval.sets.loose.rm_type=math", "set eval.sets.loose.reward.type, slime's rm_type"),
}


@pytest.mark.parametrize(("override", "message"), CASES.values(), ids=CASES)
def test_refused(tmp_path: Path, override: str, message: str) -> None:
    run_with_sets(tmp_path)
    with pytest.raises(RunFileError) as error:
        check_run_file(tmp_path / "run.yaml", [*SETS, override])
    assert message in str(error.value)


def test_a_majority_is_asked_of_the_sets_own_reward(tmp_path: Path) -> None:
    sampled = ["eval.majority=true", "eval.temperature=1", "eval.n_samples_per_prompt=4"]
    found = [str(one) for one in check_run(run_with_sets(tmp_path, *sampled, "reward.type=math"))]
    assert len(found) == 1
    assert "eval.majority: found true with eval.sets.mine.reward.type" in found[0]
    assert check_run(run_with_sets(tmp_path, *sampled[1:], "eval.sets.loose.majority=true")) == []


def test_rows_that_are_learnt_are_scored_by_nobody(tmp_path: Path) -> None:
    overrides = [*SETS[1:2], "rollout.generate=rows", "rollout.n_samples_per_prompt=1"]
    run_with_sets(tmp_path)
    with pytest.raises(RunFileError, match=r"eval\.sets\.loose\.reward: found .* where the rows have the answers"):
        check_run_file(tmp_path / "run.yaml", overrides)


def test_the_trial_calls_each_reward_on_its_rows(tmp_path: Path) -> None:
    trial, mistakes = reward_trial(run_with_sets(tmp_path))
    assert mistakes == []
    assert trial is not None
    values = {one.source: one.score.value for one in trial.answers if one.response == "the label"}
    assert values == {"data": 1.0, "eval.sets.held_out": 1.0, "eval.sets.loose": 1.0, "eval.sets.mine": 24.0}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("def score(sample):\n    return sample.metadata['truth']\n", "KeyError: 'truth' (own.py:2 in score), called"),
        ("import no_such_package\ndef score(sample):\n    return 1.0\n", "a reward that cannot be made"),
    ],
    ids=["raises", "cannot be imported"],
)
def test_the_trial_names_the_set_whose_function_cannot_score(tmp_path: Path, text: str, says: str) -> None:
    config = run_with_sets(tmp_path, "eval.sets.mine.reward.options={}")
    (tmp_path / "own.py").write_text(text)
    assert is_own(config)
    trial, mistakes = reward_trial(config)
    assert [one.key for one in mistakes] == ["eval.sets.mine.reward.type"]
    assert says in mistakes[0].found
    assert trial is not None
    assert {"data", "eval.sets.loose"} <= {one.source for one in trial.answers}


def test_a_pool_that_cannot_make_a_sets_reward_names_the_set() -> None:
    of_sets = {"hard": RewardConfig(type="regex")}
    wanted = r"\(reward.type exact, eval.sets.hard.reward.type regex\): eval.sets.hard.reward: found no reward.pattern"
    with pytest.raises(WorkerStartError, match=wanted), RewardPool(RewardConfig(), of_sets):
        pass


def test_the_pages_example(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "rewards-and-data.md").read_text(encoding="utf-8")
    text = page.split("A set may be scored by another reward than the run's:\n\n```yaml\n")[1].split("```")[0]
    shown = yaml.safe_load(text)
    tree = yaml.safe_load(RUN_FILE) | shown
    for one in shown["eval"]["sets"].values():
        one["max_prompt_tokens"] = 64
    path = write_run(tmp_path, yaml.safe_dump(tree))
    for name, label in (("aime", "7"), ("gpqa", "B"), ("mine", "x")):
        (tmp_path / f"{name}.jsonl").write_text(f'{{"prompt": "?", "label": "{label}"}}\n')
    (tmp_path / "my.py").write_text("def score(sample, strict):\n    return float(strict)\n")
    config = check_run_file(path)
    _, mistakes = reward_trial(config)
    assert mistakes == []
    assert {name: one.type.rpartition("/")[2] for name, one in own_rewards(config).items()} == {
        "gpqa": "choice",
        "mine": "my.py:score",
    }
