"""What the table of bad run files does not show: rules that must stay silent, and rules beside broken sections."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from core.checks import check_run, check_run_file
from core.checks.batch import groups_are_carried_over
from core.config import RunFileError, load_run_file
from core.config.keys import RUN_KEYS
from modelcfg import load
from tests.support.good_run import SHAPE, write_model, write_run


def problems_of(path: Path, *overrides: str) -> list[str]:
    try:
        check_run_file(path, overrides)
    except RunFileError as error:
        return [problem.key for problem in error.mistakes]
    return []


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param(["placement.engines_per_node=3"], id="more engines than trainers on a CPU"),
        pytest.param(["placement.device=cuda", "placement.trainers_per_node=2"], id="fewer engines than GPUs"),
        pytest.param(
            ["placement.device=cuda", "placement.engines=own_gpus", "placement.engines_per_node=3"],
            id="more engines than trainers, on GPUs of their own",
        ),
        pytest.param(["placement.trainers_per_node=2", "placement.tensor_parallel=2"], id="tensor parallel"),
        pytest.param(["placement.trainers_per_node=4", "placement.pipeline_parallel=4"], id="pipeline parallel"),
        pytest.param(
            ["model.path=experts", "placement.trainers_per_node=2", "placement.expert_parallel=2"], id="experts"
        ),
        pytest.param(
            [
                *("model.path=experts", "placement.trainers_per_node=2", "placement.tensor_parallel=2"),
                *("placement.expert_parallel=2", "placement.sequence_parallel=true"),
            ],
            id="experts over tensor-parallel ranks",
        ),
        pytest.param(
            [
                *("model.path=experts", "placement.trainers_per_node=2", "placement.tensor_parallel=2"),
                *("placement.expert_tensor_parallel=2", "placement.sequence_parallel=true"),
            ],
            id="experts cut over all tensor-parallel ranks",
        ),
        pytest.param(["placement.engine_tensor_parallel=6"], id="engine holds copies of a group"),
        pytest.param(["train.max_tokens_per_micro_batch=96"], id="budget of exactly one sample"),
        pytest.param(["rollout.max_response_tokens=192"], id="positions exactly used"),
        pytest.param(["train.lr_warmup_steps=4"], id="warm-up of the whole run"),
        pytest.param(["algorithm.eps_clip_high=0.2"], id="symmetric clip"),
        pytest.param(["train.num_steps_per_rollout=2", "train.global_batch_size=4"], id="two optimiser steps"),
        pytest.param(["rollout.over_sampling_batch_size=3", "rollout.filter=nonzero_std"], id="groups to choose from"),
        pytest.param(["rollout.over_sampling_batch_size=2"], id="over-sampling by none"),
        pytest.param(["rollout.over_sampling_batch_size=3", "rollout.carry_over_tokens=8"], id="carry-over"),
        pytest.param(["rollout.filter=nonzero_std", "rollout.filter_rounds=2"], id="draws again"),
        pytest.param(["data.label_key=null", "reward={type: python, path: 'score.py:score'}"], id="no label needed"),
        pytest.param(["reward={type: regex, pattern: 'is (.*)'}"], id="pattern with a group"),
        pytest.param(["reward={type: python, path: 'json.decoder:JSONDecoder'}"], id="importable module"),
        pytest.param(["model.reference_path=model", "algorithm.kl_loss_coef=0.1"], id="reference of the same shape"),
        pytest.param(
            ["eval.interval=5", "eval.temperature=0.7", "eval.n_samples_per_prompt=4"], id="sampled evaluation"
        ),
        pytest.param(["data.prompt_key=label", "data.label_key=prompt"], id="other keys"),
        pytest.param(["checkpoint.interval=50", "eval.interval=50"], id="intervals longer than a short trial"),
    ],
)
def test_a_sound_run_is_let_through(tmp_path: Path, overrides: list[str]) -> None:
    assert problems_of(write_run(tmp_path), *overrides) == []


def test_a_model_in_a_package_is_found_without_running_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "some_model" / "weights").mkdir(parents=True)
    (tmp_path / "some_model" / "__init__.py").write_text("raise ImportError\n")
    (tmp_path / "some_model" / "weights" / "model.gguf").write_bytes(b"")
    monkeypatch.syspath_prepend(tmp_path)
    path = write_run(tmp_path)
    assert problems_of(path, "model.path=package:some-model", "model.name=smollm2-135m") == []
    (tmp_path / "some_model" / "second.gguf").write_bytes(b"")
    assert problems_of(path, "model.path=package:some-model") == ["model.path"]


def test_reasoning_gym_needs_no_file(tmp_path: Path) -> None:
    gym = "{source: reasoning_gym, dataset: basic_arithmetic, size: 4, max_prompt_tokens: 64}"
    overrides = [f"data={gym}", f"eval.sets={{gym: {gym}}}", "reward.type=reasoning_gym"]
    assert problems_of(write_run(tmp_path), *overrides) == []


@pytest.mark.parametrize("section", RUN_KEYS.sections())
def test_a_broken_section_does_not_stop_the_rules_of_others(tmp_path: Path, section: str) -> None:
    path = write_run(tmp_path)
    others = {"algorithm": "algorithm.eps_clip_high=0.1", "reward": "reward.pattern=x"}
    overrides = [text for name, text in others.items() if name != section]
    keys = problems_of(path, f"{section}.zzz=1", *overrides)
    assert keys == [f"{section}.zzz", *(text.partition("=")[0] for text in overrides)]


def test_all_sections_broken(tmp_path: Path) -> None:
    overrides = [f"{section}.zzz=1" for section in RUN_KEYS.sections()]
    assert problems_of(write_run(tmp_path), *overrides) == [text.removesuffix("=1") for text in overrides]


@pytest.mark.parametrize("name", ["smollm2-135m", "llama-3.2-1b", "qwen3-0.6b"])
def test_a_checkpoint_of_its_name(tmp_path: Path, name: str) -> None:
    shape = load(name)
    scaling = shape.rope_scaling and {"rope_type": "llama3", **shape.rope_scaling.model_dump()}
    path = write_run(tmp_path)
    write_model(tmp_path / "model", shape, rope_scaling=scaling)
    assert problems_of(path, f"model.name={name}") == []


def test_every_field_of_a_shape_is_compared_with_the_name(tmp_path: Path) -> None:
    path = write_run(tmp_path)
    write_model(tmp_path / "model", SHAPE, rope_scaling=None)
    problems = check_run(load_run_file(path, ["model.name=llama-3.2-1b"]))
    fields = [problem.found.split()[0] for problem in problems if problem.key == "model.path"]
    differing = ["architecture", "num_layers", "hidden_size", "ffn_hidden_size", "num_attention_heads"]
    differing += ["num_query_groups", "head_dim", "vocab_size", "norm_eps", "rope_theta", "rope_scaling", "qkv_bias"]
    assert fields == differing


@pytest.mark.parametrize("kind", ["BPE", "Unigram"])
def test_a_reference_of_another_vocabulary_is_refused(kind: str, tmp_path: Path) -> None:
    path = write_run(tmp_path)
    write_model(tmp_path / "teacher", SHAPE)
    texts = {"model": ["a", "b", "c"], "teacher": ["a", "c", "b"]}
    for name, said in texts.items():
        vocab = {text: number for number, text in enumerate(said)} if kind == "BPE" else [[text, -1.0] for text in said]
        (tmp_path / name / "tokenizer.json").write_text(json.dumps({"model": {"type": kind, "vocab": vocab}}))
    problems = check_run(load_run_file(path, ["model.reference_path=teacher", "algorithm.kl_loss_coef=0.1"]))
    assert [str(problem).replace(str(tmp_path), "DIR") for problem in problems] == [
        "model.reference_path: found DIR/teacher, with another vocabulary: token 1 is 'b' only with DIR/model; wanted "
        "a model with the vocabulary of model.path: choose another, of the same family"
    ]
    (tmp_path / "teacher" / "tokenizer.json").write_bytes((tmp_path / "model" / "tokenizer.json").read_bytes())
    assert check_run(load_run_file(path, ["model.reference_path=teacher", "algorithm.kl_loss_coef=0.1"])) == []


@pytest.mark.parametrize(
    ("overrides", "key", "text"),
    [
        pytest.param(["data.path=broken.jsonl"], "data.path", "broken.jsonl, line 2", id="row that is not JSON"),
        pytest.param(
            ["rollout.over_sampling_batch_size=1"],
            "rollout.over_sampling_batch_size",
            "found 1; wanted at least the 2 groups that are trained (rollout_batch_size): raise it",
            id="fewer groups drawn than trained",
        ),
        pytest.param(
            ["rollout.over_sampling_batch_size=3"],
            "rollout.over_sampling_batch_size",
            "found 3 without rollout.filter; wanted a filter, as 2 of the 3 groups drawn are trained",
            id="over-sampling without a filter",
        ),
        pytest.param(
            ["rollout.carry_over_tokens=8"],
            "rollout.carry_over_tokens",
            "found 8, with 2 groups drawn and 2 trained; wanted more groups drawn than trained, so that some can",
            id="carry-over of nothing",
        ),
        pytest.param(
            ["rollout.carry_over_tokens=32", "rollout.over_sampling_batch_size=3"],
            "rollout.carry_over_tokens",
            "found 32, and max_response_tokens 32; wanted less than a whole response: lower it to 4, say, or remove it",
            id="carry-over of whole responses",
        ),
        pytest.param(
            [
                *("rollout.carry_over_tokens=8", "rollout.rollout_batch_size=1", "train.global_batch_size=4"),
                *("rollout.over_sampling_batch_size=3", "rollout.carry_over_steps=1"),
            ],
            "rollout.carry_over_steps",
            "found 1, with 3 groups drawn and 1 trained; wanted at least the 2 steps in which what is left over can be "
            "trained: raise it to 2, or lower over_sampling_batch_size",
            id="carry-over that would be due all at once",
        ),
        pytest.param(
            ["rollout.mask_carried=true"],
            "rollout.mask_carried",
            "found true without carry_over_tokens; wanted tokens that are carried over: remove it, or set",
            id="mask of nothing",
        ),
        pytest.param(
            ["rollout.filter=nonzero_std"],
            "rollout.filter",
            "found nonzero_std, with 2 groups drawn and 2 trained; wanted more groups to choose from: set",
            id="filter without a choice",
        ),
        pytest.param(
            ["rollout.over_sampling_batch_size=4", "rollout.filter=nonzero_std"],
            "data",
            "found 3 rows; wanted at least the 4 prompts of one step (over_sampling_batch_size): use more data",
            id="fewer rows than are drawn",
        ),
        pytest.param(
            ["data.path=empty.jsonl"],
            "data.path",
            "empty.jsonl without rows; wanted at least one row: correct the source",
            id="no rows",
        ),
        pytest.param(
            ["data.path=labels.jsonl"],
            "data.label_key",
            "found nothing in row 2; wanted text, a number, true or false, which",
            id="no label",
        ),
        pytest.param(
            ["data.path=labels.jsonl", "reward.type=last_number"],
            "data.label_key",
            "found 'b' in row 1; wanted a number, or text with one, which reward.type last_number compares with",
            id="label without a number",
        ),
        pytest.param(
            ["data={source: reasoning_gym, dataset: basic_arithmetik, max_prompt_tokens: 64}"],
            "data.dataset",
            "basic_arithmetic",
            id="unknown dataset",
        ),
        pytest.param(
            ["eval.sets.held_out.path=broken.jsonl"], "eval.sets.held_out.path", "broken.jsonl, line 2", id="eval set"
        ),
    ],
)
def test_what_the_data_source_says_is_passed_on(tmp_path: Path, overrides: list[str], key: str, text: str) -> None:
    problems = check_run(load_run_file(write_run(tmp_path), overrides))
    assert [problem.key for problem in problems] == [key]
    assert text in str(problems[0])
    assert str(problems[0]).count("wanted") == 1


def test_a_python_file_is_not_run_by_the_reward_check(tmp_path: Path) -> None:
    path = write_run(tmp_path)
    (tmp_path / "loud.py").write_text("raise SystemExit\nscore = lambda sample: 1.0\n")
    assert problems_of(path, "reward={type: python, path: 'loud.py:score'}") == []


def test_only_the_built_in_is_carried_over(tmp_path: Path) -> None:
    settings = ["rollout.carry_over_tokens=8", "rollout.over_sampling_batch_size=3", "rollout.generate=dialogue"]
    (found,) = groups_are_carried_over(load_run_file(write_run(tmp_path), settings))
    assert str(found).endswith(
        "rollout.carry_over_tokens: found 8 and generate dialogue; wanted one_turn with it, as what another function "
        "has begun cannot go on in another step: remove carry_over_tokens"
    )
