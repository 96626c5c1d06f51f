"""Names of slime, verl and TRL: a run file that has them is told where their meaning lives, and nothing misleading."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from core.checks import check_run_file
from core.config import RunFileError
from core.config.keys import RUN_KEYS
from core.config.other_names import ENGINE_OPTIONS, FOLDER, LIBRARIES, VALUES, find, hint, names_of, value_hint
from core.sglang.engine_options import OWNED, known_options
from launchers.moving_in.draft import LOSSES
from modelcfg.shape import ModelShape

ROWS = [(library, name) for library in LIBRARIES for name in names_of(library)]
IDS = [f"{library}.{name}" for library, name in ROWS]


@pytest.mark.parametrize(("library", "name"), ROWS, ids=IDS)
def test_a_row_says_one_thing_and_names_what_there_is(library: str, name: str) -> None:
    row = names_of(library)[name]
    assert [bool(row.key), bool(row.shape), bool(row.always), bool(row.why)].count(True) == 1
    assert bool(row.why) == bool(row.do)
    if row.key:
        option = row.key.removeprefix(f"{ENGINE_OPTIONS}.")
        known = RUN_KEYS.schema_at(tuple(row.key.split("."))) is not None
        assert known or option in known_options("cuda")[1], row.key
    assert not row.shape or row.shape in ModelShape.model_fields
    assert row.loses in {"", *LOSSES}
    assert row.loses or not row.why
    assert name == name.lower()
    if row.gives is not None:
        assert not row.how


def test_no_name_is_twice_in_a_table() -> None:
    for library in LIBRARIES:
        lines = (FOLDER / f"{library}.yaml").read_text(encoding="utf-8").splitlines()
        names = [line.partition(":")[0] for line in lines if line and line[0] not in "# "]
        assert sorted(names) == sorted(set(names)) == sorted(names_of(library))


def test_options_of_engines_that_the_run_sets_are_those_of_the_door() -> None:
    for option, key in OWNED.items():
        row = names_of("slime").get(f"sglang_{option}")
        assert row is None or row.key == key, option
    assert (find("slime", "sglang_page_size") or names_of("slime")["lr"]).key == "placement.engine_options.page_size"


@pytest.mark.parametrize(
    ("path", "told"),
    [
        (("data", "prompt_data"), "set data.path, slime's prompt_data"),
        (("rollout", "rollout_top_p"), "slime's rollout_top_p has no counterpart, as the"),
        (("algorithm", "disable_grpo_std_normalization"), "set algorithm.grpo_std_normalization, slime's disable_"),
        (("hf_checkpoint",), "set model.path, slime's hf_checkpoint (the HuggingFace directory)"),
        (("train", "use-dynamic-batch-size"), "remove slime's use_dynamic_batch_size: rows are packed up to"),
        (("train", "expert_tensor_parallel_size"), "set placement.expert_tensor_parallel, slime's expert_tensor_para"),
        (("model", "num_layers"), "remove slime's num_layers: config.json of the model says it"),
        (("placement", "sglang_page_size"), "set placement.engine_options.page_size, slime's sglang_page_size"),
        (("data", "train_batch_size"), "set rollout.rollout_batch_size, verl's data.train_batch_size"),
        (("train", "clip_ratio_high"), "set algorithm.eps_clip_high, verl's actor_rollout_ref.actor.clip_ratio_high"),
        (("actor_rollout_ref",), "remove verl's actor_rollout_ref: its settings have their places"),
        (("trainer", "total_epochs"), "set rollout.num_epoch, verl's trainer.total_epochs"),
        (("rollout", "num_generations"), "set rollout.n_samples_per_prompt, TRL's num_generations"),
        (("algorithm", "beta"), "set algorithm.kl_loss_coef, TRL's beta"),
        (("beta",), "set algorithm.kl_loss_coef, TRL's beta"),
        (("eval", "sets", "aime", "rm_type"), "set eval.sets.aime.reward.type, slime's rm_type"),
        (("eval", "sets", "aime", "input_key"), "set eval.sets.aime.prompt_key, slime's input_key"),
    ],
)  # fmt: skip
def test_a_name_of_another_library_is_told_where_it_lives(path: tuple[str, ...], told: str) -> None:
    assert (hint(path, own=False) or "").startswith(told)


@pytest.mark.parametrize(
    "path",
    [("rollout", "nonsense"), ("train", "path"), ("x",), ("data", "n"), ("data", "sglang_"), ("train", "epsilon")],
)
def test_where_nothing_corresponds_nothing_is_said(path: tuple[str, ...]) -> None:
    assert hint(path, own=False) is None


def test_a_key_of_ours_in_another_section_is_ours() -> None:
    assert hint(("data", "rollout_batch_size"), own=True) is None


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, known in VALUES.items() for value in known])
def test_values_of_others_are_told(tmp_path: Path, key: str, value: str) -> None:
    told = value_hint(key, value)
    section, name = key.split(".")
    tree = {"model": {"path": "m"}, "data": {"path": "d"}, "rollout": {"num_rollout": 1, "rollout_batch_size": 1}}
    tree |= {"train": {"global_batch_size": 8}, section: {name: value}}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(tree))
    with pytest.raises(RunFileError) as error:
        check_run_file(tmp_path / "run.yaml")
    assert told in next(mistake.remedy for mistake in error.value.mistakes if mistake.key == key)


NAMES_OF_SLIME = """
hf_checkpoint: base
data: {prompt_data: rows.jsonl, input_key: prompt, apply_chat_template_kwargs: {a: b}, rollout_shuffle: true}
rollout:
  num_rollout: 3
  rollout_batch_size: 32
  rollout_max_response_len: 8192
  rollout_top_p: 0.9
  rollout_stop: [x]
  dynamic_sampling_filter_path: slime.filters.nonzero
  partial_rollout: true
  num_epoch: 2
reward: {rm_type: deepscaler, custom_rm_path: my.reward, reward_key: score}
algorithm: {advantage_estimator: gspo, kl_coef: 0.01, use_tis: true, disable_grpo_std_normalization: true}
train: {global_batch_size: 256, lr_decay_style: constant, recompute_granularity: full, max_tokens_per_gpu: 9216}
placement:
  {colocate: true, tensor_model_parallel_size: 2, rollout_num_gpus_per_engine: 2, sglang_mem_fraction_static: 0.7}
eval: {eval_interval: 20, eval_prompt_data: [aime, aime.jsonl], n_samples_per_eval_prompt: 16}
checkpoint: {save: x, load: x, save_interval: 20}
logging: {use_wandb: true, wandb_project: x}
"""


def test_a_run_file_in_slimes_names_gets_no_hint_that_misleads(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(NAMES_OF_SLIME, encoding="utf-8")
    with pytest.raises(RunFileError) as error:
        check_run_file(tmp_path / "run.yaml")
    unknown = {one.key: one.remedy for one in error.value.mistakes if one.found == "an unknown key"}
    assert len(unknown) == 30
    assert all("slime's" in remedy for remedy in unknown.values()), unknown
    assert "did you mean" not in "".join(unknown.values())
