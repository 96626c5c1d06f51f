"""Evaluation sets with a generation of their own: what a run file says, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from core.checks import check_run_file
from core.checks.trial import can_be_tried
from core.config import RunConfig, RunFileError, dump_run_file, load_run_file
from core.config.set_generation import generation_of, own_generations
from core.doors import ONE_TURN
from tests.support.good_run import RUN_FILE, write_run

PAGE = Path(__file__).parents[3] / "docs" / "rewards-and-data.md"
AGENT = """
async def twice(task, engine, times=2):
    return None


def plain(task, engine):
    return None
"""
SET = "eval.sets.mine={path: rows.jsonl, max_prompt_tokens: 64, %s}"


def checked(folder: Path, keys: str, *overrides: str) -> RunConfig:
    path = write_run(folder)
    (folder / "agent.py").write_text(AGENT)
    return check_run_file(path, [SET % keys, *overrides])


def test_a_set_has_its_generation_and_all_else_is_the_runs(tmp_path: Path) -> None:
    config = checked(tmp_path, "generate: 'agent.py:twice', generate_options: {times: 3}")
    mine = generation_of(config, "mine")
    assert (mine.generate, mine.generate_options) == (f"{tmp_path}/agent.py:twice", {"times": 3})
    assert mine.max_response_tokens == config.rollout.max_response_tokens
    assert generation_of(config, "held_out") is generation_of(config, "") is config.rollout
    assert not can_be_tried(config)
    dump_run_file(config, tmp_path / "resolved.yaml")
    assert load_run_file(tmp_path / "resolved.yaml") == config


def test_a_set_may_take_the_built_in_beside_a_function_and_has_no_tools_then(tmp_path: Path) -> None:
    config = checked(tmp_path, "generate: one_turn", "rollout.generate=agent.py:twice")
    assert config.rollout.generate != ONE_TURN
    assert {name: one.generate for name, one in own_generations(config).items()} == {"mine": ONE_TURN}
    assert (generation_of(config, "mine").tools, generation_of(config, "mine").environment) == ([], None)


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ("generate: dialogue", "mine.generate: found 'dialogue'; wanted one of one_turn, or module.py:function"),
        ("generate: 'agent.py:thrice'", "mine.generate: found no thrice in DIR/agent.py"),
        (
            "generate: 'agent.py:plain'",
            "mine.generate: found def plain in line 6 of DIR/agent.py (plain); wanted async",
        ),
        (
            "generate: 'agent.py:twice', generate_options: {time: 3}",
            "mine.generate_options: found the option time; wanted an option of DIR/agent.py:twice: times",
        ),
        ("generate_options: {time: 3}", "mine.generate_options: found options, and no eval.sets.mine.generate"),
    ],
    ids=["needs the run's tools", "no such function", "not async", "no such option", "options alone"],
)
def test_refused(tmp_path: Path, keys: str, says: str) -> None:
    with pytest.raises(RunFileError) as error:
        checked(tmp_path, keys)
    assert f"eval.sets.{says}" in str(error.value).replace(str(tmp_path), "DIR")


def test_the_pages_example(tmp_path: Path) -> None:
    text = PAGE.read_text(encoding="utf-8").split(
        "A set may be answered otherwise than the run's prompts:\n\n```yaml\n"
    )[1]
    shown = yaml.safe_load(text.split("```")[0])
    tree = yaml.safe_load(RUN_FILE)
    for one in shown["eval"]["sets"].values():
        one["max_prompt_tokens"] = 64
    tree["eval"] = shown["eval"]
    tree["rollout"] |= shown["rollout"]
    path = write_run(tmp_path, yaml.safe_dump(tree))
    for name in ("plain", "many"):
        (tmp_path / f"{name}.jsonl").write_text('{"prompt": "?", "label": "7"}\n')
    (tmp_path / "agent.py").write_text(
        "async def solve(task, engine):\n    ...\n\n\nasync def vote(task, engine, of): ...\n"
    )
    config = check_run_file(path)
    found = {name: generation_of(config, name).generate.rpartition("/")[2] for name in config.eval.sets}
    assert found == {"as_trained": "agent.py:solve", "plain": ONE_TURN, "many": "agent.py:vote"}
