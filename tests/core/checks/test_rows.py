"""Run files whose rows are learnt: what they leave out, what is refused beside it, and what a page shows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from common.units import GIB
from core.checks import check_run_file
from core.config.layout import driven_engines, nodes, num_engines
from core.config.schema import RunConfig
from core.planner import Device, plan_memory, problems
from hpc.site.schema import Site
from launchers.submit.job_plan import make_plan, render
from modelcfg import load
from tests.support.good_run import write_run

PAGE = Path(__file__).parents[3] / "docs" / "sft.md"
RUN_FILE = """\
name: test
model: {path: model}
data: {path: talks.jsonl, prompt_key: messages, max_prompt_tokens: 64}
rollout: {generate: rows, num_rollout: 4, rollout_batch_size: 2, max_response_tokens: 32}
train: {global_batch_size: 2, lr: 1e-6}
placement: {device: cpu}
eval:
  sets:
    held_out: {path: talks.jsonl, prompt_key: messages, max_prompt_tokens: 64}
"""
WITH_ENGINES = [
    "rollout.generate=one_turn",
    "train.global_batch_size=16",
    "data.prompt_key=prompt",
    "data.path=rows.jsonl",
    "eval.sets=null",
    "reward.type=random",
]
CASES = {
    "engines": (
        ["placement.engines=colocated"],
        "placement.engines: found colocated with rollout.generate rows; wanted none, as nothing is generated: "
        "remove it",
    ),
    "a temperature": (
        ["rollout.temperature=0.7"],
        "rollout.temperature: found 0.7, where the rows have the answers (rollout.generate: rows); wanted a key that "
        "is read: remove it",
    ),
    "a reward": (
        ["reward.type=math"],
        "reward.type: found 'math', where the rows have the answers (rollout.generate: rows); wanted a key that is "
        "read: remove it",
    ),
    "groups": (
        ["rollout.n_samples_per_prompt=2", "train.global_batch_size=4"],
        "rollout.n_samples_per_prompt: found 2, where the rows have the answers (rollout.generate: rows); wanted 1, "
        "the row's: remove it",
    ),
    "an advantage": (
        ["algorithm.advantage_estimator=reinforce_plus_plus"],
        "algorithm.advantage_estimator: found reinforce_plus_plus; wanted none, or a function of your own, as the rows "
        "have the answers (rollout.generate: rows) and nobody scores them: remove it",
    ),
    "a ratio": (
        ["algorithm.loss=clipped"],
        "algorithm.loss: found clipped; wanted sft, or a function of your own, as the rows have the answers "
        "(rollout.generate: rows) and nobody scores them: remove it",
    ),
    "a correction": (
        ["algorithm.importance=tis"],
        "algorithm.importance: found 'tis'; wanted no comparison with an engine, as there is none: remove it",
    ),
    "a replay": (
        ["model.path=experts", "algorithm.routing_replay=trainer"],
        "algorithm.routing_replay: found trainer; wanted none, as the rows have the answers (rollout.generate: rows) "
        "and there is no older policy to stay close to: remove it",
    ),
    "a part of engines": (
        ["slurm.components=[{role: trainers}, {role: engines}]"],
        "slurm.components.1.role: found a part of engines, where the rows have the answers (rollout.generate: rows); "
        "wanted trainers alone: remove the part",
    ),
    "what was said": (
        ["rollout.rewritten_past=keep"],
        "rollout.rewritten_past: found keep with rows; wanted refuse or split, as there is nothing that the model said "
        "itself: set it to split",
    ),
    "no answer": (
        ["data.path=rows.jsonl", "data.prompt_key=prompt"],
        "data.prompt_key: found no message of the assistant in row 1; wanted a turn to learn in every row: name the "
        "key of the answer as label_key, or leave out such rows",
    ),
    "no template": (
        ["data.apply_chat_template=false", "data.path=rows.jsonl", "data.prompt_key=prompt"],
        "data.label_key: found null; wanted the key of the answer, as apply_chat_template is false and the rows are "
        "to be learnt: name it",
    ),
    "a loss without rewards": (
        [*WITH_ENGINES, "algorithm.loss=sft"],
        "algorithm.loss: found sft with rollout.generate one_turn: whatever the model says would count as right; "
        "wanted one that heeds the reward: set rollout.generate to rows to learn the rows' answers, or choose another",
    ),
    "no engines": (
        [*WITH_ENGINES, "placement.engines=none"],
        "placement.engines: found none with rollout.generate one_turn; wanted engines, to make the samples: remove it, "
        "or set rollout.generate to rows to learn the rows",
    ),
    "an answer of its own": (["data.path=rows.jsonl", "data.prompt_key=prompt", "data.label_key=label"], ""),
    "each turn alone": (["rollout.rewritten_past=split"], ""),
    "a seed": (["rollout.seed=7"], ""),
}


def written(folder: Path, *settings: str, text: str = RUN_FILE) -> RunConfig:
    run_file = write_run(folder, text)
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    (folder / "talks.jsonl").write_text((json.dumps({"messages": talk}) + "\n") * 32)
    return check_run_file(run_file, settings)


def test_other_keys_get_other_defaults(tmp_path: Path) -> None:
    config = written(tmp_path)
    assert (config.algorithm.loss, config.algorithm.advantage_estimator) == ("sft", "none")
    assert (config.rollout.n_samples_per_prompt, config.placement.engines) == (1, "none")
    assert (config.data.label_key, config.eval.sets["held_out"].label_key) == (None, None)


@pytest.mark.parametrize(("settings", "said"), CASES.values(), ids=CASES)
def test_what_the_login_node_says(settings: list[str], said: str, tmp_path: Path) -> None:
    try:
        written(tmp_path, *settings)
        found = ""
    except ValueError as error:
        found = str(error)
    assert said in found
    assert bool(said) == bool(found)
    if said:
        assert len(found.splitlines()) == 2, found


def test_no_process_and_no_memory_is_planned_for_engines(tmp_path: Path) -> None:
    config = written(tmp_path, "placement.device=cuda", "placement.num_nodes=2", "placement.trainers_per_node=1")
    assert (num_engines(config), driven_engines(config, 0), len(nodes(config))) == (0, [], 2)
    plan = render(make_plan(config, Site()))
    assert "trainer rank 1" in plan
    assert "engine" not in plan
    shape = load("qwen2.5-0.5b")
    memory = plan_memory(config, shape, Device("cuda", 24 * GIB))
    assert not memory.in_turns
    assert memory.cache is None
    assert set(memory.phases["update"]) == {"trainer"}
    assert problems(config, shape, memory) == []


def test_the_pages_example_is_a_run_file(tmp_path: Path) -> None:
    example = PAGE.read_text(encoding="utf-8").split("```yaml\n")[1].split("```")[0]
    example = example.replace("models/Qwen2.5-0.5B", "model").replace("conversations.jsonl", "talks.jsonl")
    config = written(
        tmp_path,
        *("data.max_prompt_tokens=64", "rollout.max_response_tokens=64", "eval.sets.held_out.max_prompt_tokens=64"),
        text=example.replace("held_out.jsonl", "talks.jsonl"),
    )
    assert config.rollout.num_rollout == 500
