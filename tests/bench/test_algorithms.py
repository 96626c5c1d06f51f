"""The comparisons of algorithms: their run files, and that pages and results say the same."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench import algorithm_seeds
from bench.algorithm_page import critic, read
from bench.algorithms import SETTINGS, Comparison, merged, parse, run_all, teachers_first
from bench.digit_task import write_task
from bench.sums_task import EXAMPLE
from core.checks import check_run_file
from core.config import load_run_file
from core.doors import ADVANTAGE, LOSS
from core.pretrained.tokenizer import load_tokenizer

TOY, DEMO = Comparison.of(SETTINGS), Comparison.of(SETTINGS.with_name("algorithms_smollm2.yaml"))
ALGORITHMS = TOY.settings["algorithms"]
RECIPES = EXAMPLE.parent / "recipes"
RECIPE = {"reinforce_plus_plus": "reinforce_pp"}  # where a recipe has another name than the algorithm


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_task(tmp_path_factory.mktemp("task"), seed=0)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_each_is_a_run_file_without_mistakes(name: str, task: Path) -> None:
    (task / "grpo").mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        (task / "grpo" / "hf").symlink_to(task / "model")
    (task / f"{name}.yaml").write_text(yaml.safe_dump(TOY.run_file(name, 4, task, task)))
    checked = check_run_file(task / f"{name}.yaml").rollout
    assert (checked.num_rollout, checked.seed) == (TOY.settings["run"]["rollout"]["num_rollout"], 4)


@pytest.mark.parametrize("name", DEMO.settings["algorithms"])
def test_each_of_the_demo_is_its_recipe_without_a_reference(name: str, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(DEMO.run_file(name, 4, tmp_path, tmp_path)))
    checked = check_run_file(tmp_path / "run.yaml")
    demo, recipe = load_run_file(EXAMPLE), load_run_file(RECIPES / f"{RECIPE.get(name, name)}.yaml")
    no_reference = {key: getattr(demo.algorithm, key) for key in ("kl_loss_coef", "kl_loss_type")}
    assert checked.algorithm == recipe.algorithm.model_copy(update=no_reference)
    assert (checked.train.num_steps_per_rollout == 1) == (recipe.train.num_steps_per_rollout == 1)
    assert (checked.rollout.n_samples_per_prompt == 1) == (recipe.rollout.n_samples_per_prompt == 1)
    assert checked.rollout.rollout_batch_size * checked.rollout.n_samples_per_prompt == 64
    assert (checked.data.seed, checked.train.lr, checked.train.lr_schedule) == (4, demo.train.lr, "linear")


def test_runs_share_a_stage_and_find_their_teachers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.algorithms.Stage", StandIn)
    made = list(run_all(TOY, ["distillation", "ppo"], [1, 2], tmp_path))
    assert [(run["name"], run["seed"]) for run in made] == [
        (name, seed) for seed in (1, 2) for name in ("grpo", "distillation", "ppo")
    ]
    assert [run["rewards"] for run in made] == [[number] for number in range(6)]
    models = [
        yaml.safe_load(file.read_text())["model"]["path"] for file in sorted(tmp_path.glob("runs-*/ppo/run.yaml"))
    ]
    assert models == [str(tmp_path / f"task-{seed}" / "model") for seed in (1, 2)]


class StandIn:
    """A stage whose runs have a step, a final model and the number of the attempt as their reward."""

    def __init__(self, model_dir: Path, log: Path) -> None:
        assert (model_dir / "config.json").is_file()
        assert log.parent.is_dir()

    def __enter__(self) -> StandIn:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def run(self, run_dir: Path, attempt: int) -> None:
        reference = yaml.safe_load((run_dir / "run.yaml").read_text())["model"].get("reference_path")
        assert reference is None or Path(reference).is_dir()
        (run_dir / "hf").mkdir()
        (run_dir / "checkpoints").mkdir()
        step = {"event": "step", "step": 0, "metrics": {"rollout/raw_reward": attempt}}
        (run_dir / "progress.jsonl").write_text(json.dumps(step) + "\n")


def test_the_demo_is_evaluated_on_rows_that_it_does_not_train_on(tmp_path: Path) -> None:
    written = DEMO.run_file("grpo", 1, tmp_path, tmp_path)
    [held_out] = written["eval"]["sets"].values()
    trained, kept_out = (Path(part["path"]).read_text().splitlines() for part in (written["data"], held_out))
    assert len(kept_out) == 20
    assert not set(trained) & set(kept_out)


def test_names_and_seeds_are_of_the_settings(capsys: pytest.CaptureFixture[str]) -> None:
    options, comparison = parse(["gspo", "--settings", str(DEMO.written.with_suffix(".yaml")), "--seeds", "2"])
    assert (options.names, options.seeds, comparison) == (["gspo"], [2], DEMO)
    options, comparison = parse([])
    assert (options.names, options.seeds, comparison) == (list(ALGORITHMS), [1], TOY)
    for words, told in (["ppp"], "found ppp; wanted of grpo, dapo"), (["--seeds", "7"], "found 7; wanted of 1: add it"):
        with pytest.raises(SystemExit):
            parse(words)
        assert told in capsys.readouterr().err


def test_a_run_replaces_the_one_of_its_name_and_seed(tmp_path: Path) -> None:
    comparison = replace(DEMO, result=tmp_path / "result.json", written=tmp_path / "page.md")
    comparison.write(comparison.record([made("gspo", 2, 0.3), made("grpo", 1, 0.5)]))
    comparison.write(comparison.record([made("gspo", 2, 0.7)]))
    record = json.loads(comparison.result.read_text())
    assert [(run["name"], run["seed"], run["accuracy"][-1]) for run in record["runs"]] == [
        ("grpo", 1, 0.5),
        ("gspo", 2, 0.7),
    ]
    assert len(record["missing"]) == 16
    page = comparison.written.read_text()
    assert page == algorithm_seeds.page(record)
    assert "Not measured so far, by seed: `grpo` 2, `grpo` 3" in page


def test_seeds_are_put_together() -> None:
    record = {"runs": [made("gspo", 1, 0.5), made("gspo", 2, 0.75), made("rloo", 1, 1.0)]}
    *_, gspo, rloo = algorithm_seeds.table(record).splitlines()
    assert gspo == "| `gspo` | 2 | 0.10 | 0.62 (0.50 to 0.75) |"
    assert rloo == "| `rloo` | 1 | 0.10 | 1.00 |"
    assert "| `gspo` | 2 | 0.10 | 0.75 | 0.20 | 0.90 | 12 |" in algorithm_seeds.alone(record)
    told = "After the last step 1 of 3 runs are above 0.75, and none is below 0.50; not above it: `gspo` with seed 1, "
    assert algorithm_seeds.ends({"target": 0.75, **record}).startswith(told)


def test_a_teacher_runs_before_those_that_learn_from_it() -> None:
    assert teachers_first(["ppo", "distillation", "grpo"], ALGORITHMS) == ["ppo", "grpo", "distillation"]


def test_every_advantage_and_loss_that_engines_make_samples_for_is_among_them() -> None:
    chosen = [one.get("algorithm", {}) for one in ALGORITHMS.values()]
    assert {one.get("advantage_estimator", "grpo") for one in chosen} == set(ADVANTAGE.builtins) - {"none"}
    assert {one.get("loss", "clipped") for one in chosen} == set(LOSS.builtins) - {"sft"}


def test_a_digit_is_a_token(task: Path) -> None:
    tokenizer = load_tokenizer(task / "model")
    assert [tokenizer.decode(tokenizer.encode(str(digit))) for digit in range(10)] == list(map(str, range(10)))
    assert tokenizer.decode([2, 5]) == "2"


def test_settings_are_laid_over_each_other_key_by_key() -> None:
    assert merged({"a": {"b": 1, "c": 2}, "d": 1}, {"a": {"b": 3}}, {"d": {"e": 4}}) == {
        "a": {"b": 3, "c": 2},
        "d": {"e": 4},
    }


def test_rewards_and_accuracies_are_read_in_order(tmp_path: Path) -> None:
    events = [{"event": "eval", "step": 0, "results": {"digits": {"accuracy": 0.1}}}]
    events += [{"event": "step", "step": step, "metrics": {"rollout/raw_reward": step / 4}} for step in range(3)]
    events += [{"event": "eval", "step": 3, "results": {"digits": {"accuracy": 0.9}}}]
    (tmp_path / "progress.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    assert read(tmp_path) == {"rewards": [0.0, 0.25, 0.5], "accuracy": [0.1, 0.9], "evaluated": [0, 3]}


def test_what_a_critic_explains_is_told(tmp_path: Path) -> None:
    values = [None, -0.5, 0.25, 0.75]
    metrics = [
        {"rollout/raw_reward": 0.5, **({"train/explained_variance": x} if x is not None else {})} for x in values
    ]
    lines = [json.dumps({"event": "step", "step": step, "metrics": one}) for step, one in enumerate(metrics)]
    (tmp_path / "progress.jsonl").write_text("\n".join(lines))
    found = read(tmp_path)
    assert found["explained_variance"] == values
    told = critic({"name": "ppo", **found})
    assert "`ppo` explains 0.75 of the variance" in told
    assert "0.25 in the\nmedian of all, 0.75 at most; it is above 0 in 2 of 3 steps" in told
    assert critic({"name": "grpo"}) == ""


@pytest.mark.parametrize("comparison", [TOY, DEMO], ids=["toy", "demo"])
def test_the_page_is_made_of_the_result(comparison: Comparison) -> None:
    record = json.loads(comparison.result.read_text(encoding="utf-8"))
    assert comparison.written.read_text(encoding="utf-8") == comparison.page.page(record)
    settings = comparison.settings
    named = {*((run["name"], run["seed"]) for run in record["runs"]), *map(tuple, record["missing"])}
    assert named == {(name, seed) for name in settings["algorithms"] for seed in settings["seeds"]}
    assert record["runs"]
    assert comparison.result.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_every_algorithm_solves_the_toy() -> None:
    record = json.loads(TOY.result.read_text(encoding="utf-8"))
    assert all(run["accuracy"][-1] > record["target"] > run["accuracy"][0] for run in record["runs"])


def test_every_algorithm_learns_the_demo_as_the_page_of_algorithms_says() -> None:
    runs = json.loads(DEMO.result.read_text(encoding="utf-8"))["runs"]
    assert {run["accuracy"][0] for run in runs} == {0.1}
    assert min(run["accuracy"][-1] for run in runs) >= 0.9


def made(name: str, seed: int, last: float) -> dict[str, Any]:
    """A run on record."""
    about = {"name": name, "seed": seed, "commit": "abc", "seconds": 12.3}
    return {**about, "rewards": [0.2, 0.4, 0.9], "accuracy": [0.1, last], "evaluated": [0, 3]}
