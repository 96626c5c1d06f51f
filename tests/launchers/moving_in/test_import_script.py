"""A launch script becomes a run file: flags are keys, defaults that differ are written out, and the rest is told."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from core.checks import check_run_file
from core.checks.model import shape_divides
from core.checks.rows import nothing_is_sampled, nothing_is_weighed, rows_or_engines
from core.config import load_run_file
from core.config.set_rewards import reward_of
from launchers.moving_in.import_script import Imported, import_script
from launchers.moving_in.shell import ScriptError
from launchers.moving_in.summary import summary
from tests.support.good_run import write_run
from tests.support.tiny_runs import ebbtide

ROWS_RULES = (rows_or_engines, nothing_is_sampled, nothing_is_weighed)
MODEL = """
MODEL_ARGS=(
   --swiglu --num-layers 36 --hidden-size 2560 --ffn-hidden-size 9728 --num-attention-heads 32
   --group-query-attention --num-query-groups 8 --kv-channels 128 --qk-layernorm --vocab-size 151936
   --rotary-base "${BASE:-1000000}" --norm-epsilon 1e-6 --disable-bias-linear --normalization RMSNorm
)
"""
SCRIPT = """
set -ex
GPUS=${GPUS:-8}
source "$(dirname "${BASH_SOURCE[0]}")/models/four.sh"
CKPT_ARGS=(--hf-checkpoint /m/Qwen3-4B --ref-load /m/Qwen3-4B_torch_dist --load /s/ --save /s/ --save-interval 20)
ROLLOUT_ARGS=(
   --prompt-data /d/rows.jsonl --input-key question --label-key answer --apply-chat-template --rollout-shuffle
   --rm-type deepscaler --num-rollout 300 --rollout-batch-size 32 --n-samples-per-prompt 8
   --rollout-max-response-len 8192 --rollout-temperature 0.8 --global-batch-size 128 --balance-data
   # --over-sampling-batch-size 64
)
EVAL_ARGS=(--eval-interval 20 --eval-prompt-data aime /d/aime.jsonl gpqa /d/gpqa.parquet@[0:50]
   --n-samples-per-eval-prompt 16 --eval-max-response-len 16384 --eval-top-p 0.7)
OTHER_ARGS=(
   --tensor-model-parallel-size 2 --sequence-parallel --context-parallel-size 2 --recompute-granularity full
   --recompute-method uniform --recompute-num-layers 1 --use-dynamic-batch-size --max-tokens-per-gpu 9216
   --advantage-estimator gspo --use-kl-loss --kl-loss-coef 0.001 --kl-loss-type low_var_kl --eps-clip 0.2
   --eps-clip-high 0.28 --optimizer adam --lr 2e-6 --lr-decay-style cosine --lr-warmup-fraction 0.1 --min-lr 1e-7
   --weight-decay 0.1 --rollout-num-gpus-per-engine 2 --sglang-mem-fraction-static 0.7 --sglang-schedule-policy lpm
   --sglang-cuda-graph-bs 1 2 4 --use-wandb --wandb-project p --wandb-key secret-of-mine --attention-dropout 0.0
   --no-such-flag 3 --update-weight-mode delta
)
ray job submit --runtime-env-json='{"env_vars": {"PYTHONPATH": "/x", "NCCL_IB_TC": "160"}}' \\
   -- python3 train.py --actor-num-nodes 1 --actor-num-gpus-per-node ${GPUS} --colocate \\
   ${MODEL_ARGS[@]} ${CKPT_ARGS[@]} ${ROLLOUT_ARGS[@]} ${EVAL_ARGS[@]} ${OTHER_ARGS[@]}
"""
TINY = """
python3 train.py --hf-checkpoint model --prompt-data rows.jsonl --input-key prompt --label-key label --rm-type math \\
  --num-rollout 4 --rollout-batch-size 2 --n-samples-per-prompt 4 --global-batch-size 8 --rollout-max-response-len 32 \\
  --rollout-max-context-len 96 --actor-num-gpus-per-node 1 --rollout-max-prompt-len 64 """


def imported(folder: Path, text: str, **environment: str) -> Imported:
    (folder / "models").mkdir(exist_ok=True)
    (folder / "models" / "four.sh").write_text(MODEL)
    (folder / "run-mine.sh").write_text(text)
    return import_script(folder / "run-mine.sh", environment)


def of_flags(folder: Path, flags: str) -> Imported:
    return imported(folder, f"python3 train.py --hf-checkpoint m --prompt-data d.jsonl --rollout-batch-size 4 {flags}")


def keys(found: Imported) -> dict[str, object]:
    return {key: setting.value for key, setting in found.draft.settings.items()}


def test_a_whole_script_becomes_a_run_file(tmp_path: Path) -> None:
    found = imported(tmp_path, SCRIPT)
    assert found.mistakes == []
    assert (found.model, found.unknown_family, found.draft.todo) == ("qwen3-4b", "", [])
    assert yaml.safe_load(found.text) == {
        "name": "mine",
        "model": {"path": "/m/Qwen3-4B", "name": "qwen3-4b"},
        "data": {
            "path": "/d/rows.jsonl",
            "prompt_key": "question",
            "label_key": "answer",
            "apply_chat_template": True,
            "max_prompt_tokens": 1024,
            "shuffle": True,
            "seed": 42,
        },
        "rollout": {
            "num_rollout": 300,
            "rollout_batch_size": 32,
            "n_samples_per_prompt": 8,
            "max_response_tokens": 8192,
            "temperature": 0.8,
            "seed": 42,
        },
        "reward": {"type": "deepscaler"},
        "algorithm": {
            "loss": "gspo",
            "eps_clip": 0.2,
            "eps_clip_high": 0.28,
            "kl_loss_coef": 0.001,
            "kl_loss_type": "low_var_kl",
            "loss_aggregation": "sample_mean",
        },
        "train": {
            "global_batch_size": 128,
            "num_steps_per_rollout": 2,
            "lr": 2e-6,
            "min_lr": 1e-7,
            "lr_schedule": "cosine",
            "lr_warmup_steps": 60,
            "weight_decay": 0.1,
            "adam_beta2": 0.999,
            "dither_masters": False,
            "max_tokens_per_micro_batch": 18432,
            "use_distributed_optimizer": True,
            "recompute": "full",
        },
        "placement": {
            "num_nodes": 1,
            "trainers_per_node": 8,
            "engines_per_node": 4,
            "engine_tensor_parallel": 2,
            "engines": "colocated",
            "tensor_parallel": 2,
            "sequence_parallel": True,
            "context_parallel": 2,
            "engine_memory_fraction": 0.7,
            "engine_options": {"schedule_policy": "lpm", "cuda_graph_bs_decode": [1, 2, 4]},
            "engine_max_running_requests": None,
        },
        "eval": {
            "interval": 20,
            "sets": {
                "aime": {
                    "path": "/d/aime.jsonl",
                    "prompt_key": "question",
                    "label_key": "answer",
                    "apply_chat_template": True,
                    "max_prompt_tokens": 1024,
                },
                "gpqa": {
                    "source": "parquet",
                    "path": "/d/gpqa.parquet",
                    "size": 50,
                    "prompt_key": "question",
                    "label_key": "answer",
                    "apply_chat_template": True,
                    "max_prompt_tokens": 1024,
                },
            },
            "n_samples_per_prompt": 16,
            "temperature": 0.8,
            "top_p": 0.7,
            "max_response_tokens": 16384,
        },
        "checkpoint": {"interval": 20, "every": "auto", "keep": 2, "save_hf": "end"},
        "logging": {"sinks": ["tensorboard", {"name": "wandb", "options": {"project": "p"}}]},
    }


def test_every_flag_is_a_key_or_told_with_its_reason(tmp_path: Path) -> None:
    found = imported(tmp_path, SCRIPT)
    lost = {(one.flag, one.loses) for one in found.draft.lost}
    assert lost == {
        ("--no-such-flag 3", "result"),
        ("--update-weight-mode delta", "speed"),
        ("--wandb-key …", "view"),
    }
    assert all(one.why and one.do for one in found.draft.lost)
    for flag in ("--update-weight-mode delta", "--no-such-flag 3", "--optimizer adam", "--load /s/", "--balance-data"):
        assert flag in found.text
        assert "secret-of-mine" not in found.text + summary(found, "x")
    assert "#   variables of the script, if they are needed (environment in site.yaml): NCCL_IB_TC: '160'" in found.text
    assert "# site: 1 node with 8 GPUs for this run" in found.text


def test_defaults_of_slime_that_are_not_ours_are_written_out(tmp_path: Path) -> None:
    found = keys(of_flags(tmp_path, "--num-rollout 3 --rm-type math --use-kl-loss --kl-loss-coef 0.1"))
    expected = {
        "data.prompt_key": "input",
        "data.label_key": None,
        "data.apply_chat_template": False,
        "data.shuffle": False,
        "rollout.n_samples_per_prompt": 1,
        "rollout.seed": 42,
        "algorithm.kl_loss_type": "k1",
        "algorithm.loss_aggregation": "sample_mean",
        "algorithm.grpo_std_normalization": False,
        "train.weight_decay": 0.01,
        "train.adam_beta2": 0.999,
        "train.lr_schedule": "linear",
        "train.dither_masters": False,
        "placement.trainers_per_node": 8,
    }
    assert {key: found[key] for key in expected} == expected


PARTIAL = "--partial-rollout --over-sampling-batch-size 8"
OVER_NODES = "--actor-num-nodes 2 --rollout-num-gpus-per-engine 16"
CUT_EXPERTS = "--tensor-model-parallel-size 2 --expert-model-parallel-size 8 --expert-tensor-parallel-size"
LAST = "--pipeline-model-parallel-size 4 --decoder-last-pipeline-num-layers"
MAMBA = "placement.engine_options.mamba_radix_cache_strategy"
FILTER = "--dynamic-sampling-filter-path"


@pytest.mark.parametrize(
    ("flags", "key", "value"),
    [
        ("--calculate-per-token-loss", "algorithm.loss_aggregation", "token_mean"),
        ("--advantage-estimator cispo", "algorithm.loss", "cispo"),
        ("--advantage-estimator reinforce_plus_plus --gamma 0.9", "algorithm.advantage_options", {"gamma": 0.9}),
        ("--advantage-estimator ppo", "algorithm.advantage_estimator", "gae"),
        (
            "--advantage-estimator ppo --gamma 0.99 --lambd 0.95",
            "algorithm.advantage_options",
            {"gamma": 0.99, "lambd": 0.95},
        ),
        ("--advantage-estimator ppo --value-clip 0.5", "critic.value_clip", 0.5),
        ("--advantage-estimator ppo --num-critic-only-steps 1", "critic.num_critic_only_steps", 1),
        ("--disable-grpo-std-normalization --n-samples-per-prompt 4", "algorithm.grpo_std_normalization", False),
        ("--use-tis --tis-clip 3 --tis-clip-low 0.5", "algorithm.importance_high", 3.0),
        ("--use-tis --custom-tis-function-path a.icepop_function", "algorithm.importance", "icepop"),
        ("--advantage-estimator gspo --use-tis", "algorithm.importance", "sequence"),
        ("--use-opsm", "algorithm.opsm_delta", 1e-4),
        ("--num-steps-per-rollout 2 --n-samples-per-prompt 4", "train.global_batch_size", 8),
        ("--recompute-granularity full --recompute-method block --recompute-num-layers 3", "train.recompute_layers", 3),
        ("--recompute-granularity selective --recompute-modules layernorm moe_act", "train.recompute", "selective"),
        ("--recompute-granularity selective --recompute-modules mlp core_attn", "train.recompute", "selective"),
        ("--max-tokens-per-gpu 100 --rollout-max-response-len 500", "train.max_tokens_per_micro_batch", 1524),
        ("--rollout-max-context-len 600 --rollout-max-response-len 500", "data.max_prompt_tokens", 100),
        ("--rollout-stop-token-ids 5 6", "rollout.stop_token_ids", [5, 6]),
        (f"{FILTER} a.check_reward_nonzero_std", "rollout.filter_rounds", 10),
        (f"{FILTER} a.check_reward_nonzero_std_with_fallback", "rollout.over_sampling_batch_size", 8),
        (f"{FILTER} a.b.hard", "rollout.filter", "a.b:hard"),
        (f"{PARTIAL} --rollout-max-response-len 800", "rollout.carry_over_tokens", 100),
        (f"{PARTIAL} --mask-offpolicy-in-partial-rollout", "rollout.mask_carried", True),
        ("--rm-type gpqa", "reward.type", "choice"),
        ("--rm-type boxed_math", "reward.type", "math"),
        ("--custom-rm-path mine.score", "reward.type", "mine:score"),
        ("--custom-rm-path mine.score --reward-key acc", "reward.key", "acc"),
        ("--rm-type remote_rm --rm-url http://judge:8000/rm", "reward.options", {"url": "http://judge:8000/rm"}),
        ("--custom-generate-function-path a.b.generate", "rollout.generate", "a.b:generate"),
        ("--sglang-enable-deterministic-inference", "rollout.deterministic", True),
        ("--sglang-server-concurrency 300", "placement.engine_max_running_requests", 300),
        ("--rollout-num-gpus-per-engine 16 --colocate", "placement.engine_tensor_parallel", 8),
        (f"{OVER_NODES} --colocate", "placement.engine_tensor_parallel", 16),
        (f"{OVER_NODES} --colocate", "placement.engines_per_node", 1),
        (f"{OVER_NODES} --rollout-num-gpus 40", "placement.engine_tensor_parallel", 8),
        (f"{OVER_NODES} --rollout-num-gpus 48", "placement.engine_tensor_parallel", 16),
        ("--actor-num-gpus-per-node 4 --rollout-num-gpus 4", "placement.engines", "own_gpus"),
        ("--expert-model-parallel-size 8 --tensor-model-parallel-size 2", "placement.expert_parallel", 8),
        ("--expert-model-parallel-size 8 --pipeline-model-parallel-size 2", "placement.expert_parallel", 4),
        (f"{CUT_EXPERTS} 2", "placement.expert_tensor_parallel", 2),
        (f"{CUT_EXPERTS} 2", "placement.expert_parallel", 4),
        (f"{CUT_EXPERTS} 4", "placement.expert_tensor_parallel", 2),
        ("--pipeline-model-parallel-size 4 --num-layers 6", "placement.pipeline_parallel", 2),
        (f"{LAST} 22 --num-layers 94", "placement.pipeline_parallel", 4),
        (f"{LAST} 22 --num-layers 94", "placement.pipeline_last_layers", 22),
        (f"{LAST} 16 --decoder-first-pipeline-num-layers 14 --num-layers 78", "placement.pipeline_first_layers", 14),
        (f"{LAST} 20 --num-layers 94", "placement.pipeline_parallel", 2),
        ("--update-weight-transport disk", "placement.weight_sync", "files"),
        ("--eval-interval 2 --eval-prompt-data /d/aime.jsonl", "eval.sets.aime.path", "/d/aime.jsonl"),
        ("--train-iters=7 --seed=3", "train.seed", 3),
        ("--hf-checkpoint /m/Big-FP8 --ref-load /m/Big_torch_dist", "model.path", "/m/Big"),
        ("--hf-checkpoint /m/Big-FP8/", "model.path", "/m/Big-FP8"),
        ("--hf-checkpoint /m/Big-INT4 --ref-load /m/Big-INT4_torch_dist", "model.path", "/m/Big-INT4"),
        ("--hf-checkpoint /m/Big-W4A16 --ref-load /m/Big-FP8_torch_dist", "model.path", "/m/Big-W4A16"),
        ("--hf-checkpoint /m/Big-AWQ", "model.path", "/m/Big"),
        ("--async-save", "checkpoint.asynchronous", "on"),
        ("--optimizer-cpu-offload --optimizer-offload-fraction 0.5", "train.optimizer_state", "streamed"),
        ("--sglang-mamba-scheduler-strategy no_buffer", MAMBA, "no_buffer"),
        ("--use-tensorboard", "logging.sinks", ["tensorboard"]),
        ("--no-offload-train", "placement.offload", "off"),
        ("--save-hf /out/{rollout_id} --save-interval 5", "checkpoint.save_hf", "every 5"),
        ("--save-hf /out/{rollout_id}", "checkpoint.save_hf", "end"),
    ],
)  # fmt: skip
def test_flags_that_need_thought(tmp_path: Path, flags: str, key: str, value: object) -> None:
    found = of_flags(tmp_path, f"--num-rollout 3 {flags}")
    assert keys(found)[key] == value
    assert found.mistakes == []


def test_epochs_stay_epochs_and_a_share_of_their_steps_is_told_where_the_rows_are_here(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("{}\n" * 10 + "\n")
    flags = "--num-epoch 4 --n-samples-per-prompt 2 --rm-type math --lr-warmup-fraction 0.3"
    found = of_flags(tmp_path, f"--prompt-data {tmp_path / 'rows.jsonl'} {flags}")
    assert (keys(found)["rollout.num_epoch"], keys(found).get("rollout.num_rollout")) == (4, None)
    assert keys(found)["train.lr_warmup_steps"] == 3  # 40 rows in steps of 4
    assert (found.mistakes, found.draft.todo) == ([], [])
    assert "train.lr_warmup_steps: 0.3" in "".join(of_flags(tmp_path, flags).draft.todo)


def test_engines_on_nodes_of_their_own_are_a_part_of_the_job(tmp_path: Path) -> None:
    found = of_flags(
        tmp_path, "--num-rollout 3 --actor-num-nodes 2 --rollout-num-gpus 16 --rollout-num-gpus-per-engine 4"
    )
    assert keys(found)["slurm.components"] == [
        {"role": "trainers"},
        {"role": "engines", "nodes": 2, "engines_per_node": 2},
    ]
    assert "# site: 4 nodes with 8 GPUs each" in found.text


SUPERVISED = (
    "--rollout-function-path slime.rollout.sft_rollout.generate_rollout --input-key messages --num-rollout 3 "
    "--loss-type sft_loss --calculate-per-token-loss --disable-compute-advantages-and-returns --debug-train-only"
)


def test_supervised_training_becomes_a_run_of_rows(tmp_path: Path) -> None:
    found = of_flags(tmp_path, f"{SUPERVISED} --loss-mask-type qwen --max-tokens-per-gpu 4096")
    assert (found.mistakes, found.draft.todo, found.draft.lost) == ([], [], [])
    said = keys(found)
    assert said["rollout.generate"] == "rows"
    assert (said["rollout.max_response_tokens"], said["data.apply_chat_template"]) == (3072, True)
    assert not [key for key in said if key.startswith(("reward.", "placement.engine")) or "advantage" in key]
    (tmp_path / "mine.yaml").write_text(found.text)
    config = load_run_file(tmp_path / "mine.yaml")
    assert (config.algorithm.loss, config.placement.engines) == ("sft", "none")
    assert [mistake for rule in (*ROWS_RULES,) for mistake in rule(config)] == []


def test_sets_of_a_supervised_launch_are_not_sampled(tmp_path: Path) -> None:
    one = "{name: held, path: /d/held.jsonl, temperature: 0.6, n_samples_per_eval_prompt: 4, input_key: messages}"
    (tmp_path / "eval.yaml").write_text(f"eval: {{defaults: {{top_p: 0.7}}, datasets: [{one}]}}")
    sets = f"--eval-interval 2 --eval-config {tmp_path / 'eval.yaml'}"
    found = of_flags(tmp_path, f"{SUPERVISED} --max-tokens-per-gpu 4096 {sets}")
    said = {key: value for key, value in keys(found).items() if key.startswith("eval.")}
    assert said["eval.sets.held.prompt_key"] == "messages"
    assert not {"temperature", "top_p", "n_samples_per_prompt", "reward"} & {key.split(".")[-1] for key in said}
    (tmp_path / "mine.yaml").write_text(found.text)
    config = load_run_file(tmp_path / "mine.yaml")
    assert [mistake for rule in ROWS_RULES for mistake in rule(config)] == []


def test_a_teacher_of_slime_is_the_reference_of_the_loss_distillation(tmp_path: Path) -> None:
    own = "--use-opd --opd-type megatron --opd-kl-coef 0.5 --opd-teacher-load /t/Big_torch_dist --num-rollout 3"
    found = of_flags(tmp_path, f"{own} --rm-type math --n-samples-per-prompt 4")
    said = keys(found)
    assert (said["algorithm.loss"], said["model.reference_path"]) == ("distillation", "/t/Big")
    assert said["algorithm.loss_options"] == {"coef": 0.5, "advantage_weight": 1.0}
    assert (found.mistakes, found.draft.todo, found.draft.losses("task", "code", "result")) == ([], [], [])


def test_a_teacher_on_a_server_is_to_be_named_and_rewards_count_for_nothing(tmp_path: Path) -> None:
    asks = "slime.rollout.on_policy_distillation"
    server = f"--custom-rm-path {asks}.reward_func --custom-reward-post-process-path {asks}.post --rm-url http://x"
    found = of_flags(tmp_path, f"--use-opd --opd-type sglang --opd-kl-coef 1.0 {server} --num-rollout 3")
    said = keys(found)
    assert said["algorithm.loss_options"] == {"coef": 1.0, "advantage_weight": 0.0}
    assert (said["reward.type"], len(found.draft.todo)) == ("random", 1)
    assert found.draft.losses("task", "code", "result") == []


def test_old_log_probs_may_be_the_engines(tmp_path: Path) -> None:
    assert keys(of_flags(tmp_path, "--use-rollout-logprobs"))["algorithm.old_logprobs"] == "engine"


@pytest.mark.parametrize(
    ("flags", "wanted", "lost"),
    [
        ("--num-steps-per-rollout 2", "trainer", []),
        ("--num-steps-per-rollout 1", None, []),
        (
            "--num-steps-per-rollout 2 --context-parallel-size 2",
            None,
            ["only ranks that have whole rows replay experts"],
        ),
    ],
)
def test_experts_are_replayed_where_there_is_a_later_pass(
    tmp_path: Path, flags: str, wanted: str | None, lost: list[str]
) -> None:
    found = of_flags(tmp_path, f"--use-routing-replay {flags}")
    assert keys(found).get("algorithm.routing_replay") == wanted
    assert [one.why for one in found.draft.losses("result") if "replay" in one.why] == lost


GROUPS = "--sglang-enable-dp-attention --sglang-enable-dp-lm-head --colocate --num-attention-heads 32"


@pytest.mark.parametrize(
    ("flags", "size", "lost"),
    [
        ("--sglang-dp-size 4 --rollout-num-gpus-per-engine 8", 4, 0),
        ("--sglang-dp-size 8 --rollout-num-gpus-per-engine 4", 4, 0),
        ("--sglang-dp-size 8 --rollout-num-gpus-per-engine 1", None, 3),
        ("--sglang-dp-size 8 --rollout-num-gpus-per-engine 16 --actor-num-nodes 2", None, 3),
        ("--sglang-dp-size 1 --rollout-num-gpus-per-engine 8", None, 0),
    ],
    ids=["of two", "as many as ranks", "one rank", "over nodes", "one group"],
)
def test_ranks_of_an_engine_on_one_node_compute_attention_in_groups(
    tmp_path: Path, flags: str, size: int | None, lost: int
) -> None:
    found = of_flags(tmp_path, f"{GROUPS} {flags}")
    options = {key.rpartition(".")[2]: value for key, value in keys(found).items() if ".engine_options." in key}
    wanted = {"enable_dp_attention": True, "dp_size": size, "enable_dp_lm_head": True}
    assert options == ({} if size is None else wanted)
    assert len([one for one in found.draft.losses("memory") if "in groups" in one.why]) == lost
    assert not [one for one in found.mistakes if "engine_options" in str(one)]


EXPERTS = "--num-layers 4 --num-experts 8"


@pytest.mark.parametrize(
    ("flags", "wanted", "lost"),
    [
        (EXPERTS, "engine", []),
        (f"{EXPERTS} --use-routing-replay --num-steps-per-rollout 2", "engine", []),
        ("--num-layers 4", None, []),
        (f"{EXPERTS} --context-parallel-size 2", None, ["only ranks that have whole rows replay experts"]),
    ],
    ids=["alone", "both", "a dense model", "parts of rows"],
)
def test_experts_of_the_engine_are_replayed(tmp_path: Path, flags: str, wanted: str | None, lost: list[str]) -> None:
    found = of_flags(tmp_path, f"--use-rollout-routing-replay {flags}")
    assert keys(found).get("algorithm.routing_replay") == wanted
    assert [one.why for one in found.draft.losses("result") if "replay" in one.why] == lost


def test_an_engine_has_as_many_gpus_as_its_attention_heads_can_be_shared_by(tmp_path: Path) -> None:
    found = of_flags(tmp_path, "--num-attention-heads 20 --rollout-num-gpus-per-engine 8 --colocate")
    assert (keys(found)["placement.engine_tensor_parallel"], keys(found)["placement.engines_per_node"]) == (4, 2)
    assert [one.why for one in found.draft.losses("memory")] == [
        "20 attention heads are not to be shared out over them"
    ]


@pytest.mark.parametrize(
    ("flags", "loses"),
    [
        ("--loss-type sft_loss --num-rollout 2", "task"),
        ("--use-kl-loss --kl-loss-coef 0.1 --use-opd --opd-teacher-load t", "result"),
        ("--multimodal-keys {}", "task"),
        ("--mtp-num-layers 1", "task"),
        ("--custom-loss-function-path a.loss", "code"),
        ("--rm-type ifbench", "code"),
        ("--rollout-top-p 0.9", "result"),
        ("--moe-aux-loss-coeff 0.1", "result"),
        ("--optimizer sgd", "result"),
        ("--global-batch-size 3", "result"),
        ("--optimizer-cpu-offload --advantage-estimator ppo", "memory"),
        ("--exp-avg-dtype bf16", "memory"),
        ("--hf-checkpoint /m/Big-INT8", "memory"),
        ("--sglang-quantization fp8", "memory"),
        ("--recompute-modules mlp core_attn --recompute-granularity selective", "memory"),
        ("--update-weight-mode delta", "speed"),
        ("--sglang-no-such-option 1", "speed"),
        ("--sglang-tokenizer-path x", "speed"),
        ("--wandb-host h", "view"),
    ],
)
def test_what_has_no_counterpart_says_what_is_lost(tmp_path: Path, flags: str, loses: str) -> None:
    found = of_flags(tmp_path, flags)
    assert ("THE RUN FILE IS NOT" in summary(found, "x")) is ("THIS IS NOT" in found.text) is (loses == "task")
    assert loses in {one.loses for one in found.draft.lost if one.flag.split()[0] in flags}
    assert f"no counterpart ({loses}): {flags.split()[0]}" in summary(found, "run.sh")


IN_REWARD = "--num-rollout 3 --n-samples-per-prompt 2 --kl-coef 0.01 --ref-update-interval 5 --kl-loss-type"


@pytest.mark.parametrize(("estimator", "name"), [("ppo", "gae"), ("reinforce_plus_plus", "reinforce_plus_plus")])
def test_a_kl_in_the_rewards(tmp_path: Path, estimator: str, name: str) -> None:
    found = of_flags(tmp_path, f"--advantage-estimator {estimator} {IN_REWARD} k1")
    assert (
        keys(found).items()
        >= {
            "algorithm.advantage_estimator": name,
            "algorithm.kl_coef": 0.01,
            "algorithm.ref_update_interval": 5,
        }.items()
    )
    assert found.draft.lost == []
    (lost,) = of_flags(tmp_path, f"--advantage-estimator {estimator} {IN_REWARD} k3").draft.lost
    assert (lost.flag, lost.loses) == ("--kl-loss-type k3", "result")


def test_a_kl_in_rewards_that_are_compared_has_no_effect(tmp_path: Path) -> None:
    found = of_flags(tmp_path, f"--advantage-estimator grpo {IN_REWARD} k1")
    assert not {"algorithm.kl_coef", "algorithm.ref_update_interval"} & set(keys(found))
    assert found.draft.lost == []
    (lost,) = of_flags(tmp_path, f"--advantage-estimator reinforce_plus_plus_baseline {IN_REWARD} k1").draft.lost
    assert (lost.flag, lost.loses) == ("--kl-coef 0.01", "result")


@pytest.mark.parametrize(
    "flags",
    [
        "--rollout-top-p 1.0",
        "--use-precision-aware-optimizer --exp-avg-dtype fp32",
        "--log-multi-turn",
        "--kl-coef 0.00",
        "--context-parallel-size 1",
        "--moe-token-dispatcher-type alltoall",
    ],
)
def test_a_flag_that_asks_for_nothing_is_no_loss(tmp_path: Path, flags: str) -> None:
    found = of_flags(tmp_path, f"--num-rollout 3 --n-samples-per-prompt 2 {flags}")
    assert found.draft.lost == []


def test_what_the_caller_sets_is_asked_for_with_the_keys_that_need_it(tmp_path: Path) -> None:
    text = (
        'python3 train.py --hf-checkpoint $BASE/m --prompt-data "$(date).jsonl" --wandb-key $WANDB_KEY --num-rollout 3'
    )
    found = imported(tmp_path, text)
    assert found.draft.todo[:2] == [
        "$BASE is not set in the script: give it with --env BASE=VALUE (model.path)",
        "$(date) is what a command prints, and none is run: put it in by hand (data.path)",
    ]
    assert not any("WANDB" in line for line in found.draft.todo)
    assert keys(imported(tmp_path, text, BASE="/b"))["model.path"] == "/b/m"


SIZES = {
    "qwen2.5-0.5b": "--num-layers 24 --hidden-size 896 --ffn-hidden-size 4864 --num-attention-heads 14"
    " --num-query-groups 2 --vocab-size 151936 --rotary-base 1000000 --add-qkv-bias",
    "glm4-9b": "--num-layers 40 --hidden-size 4096 --ffn-hidden-size 13696 --num-attention-heads 32"
    " --num-query-groups 2 --vocab-size 151552 --rotary-base 10000 --rotary-percent 0.5 --rotary-interleaved"
    " --kv-channels 128 --untie-embeddings-and-output-weights --add-qkv-bias --post-self-attn-layernorm"
    " --spec plugins.glm4 a",
    "glm4.5-106b-a12b": "--num-layers 46 --hidden-size 4096 --ffn-hidden-size 10944 --moe-ffn-hidden-size 1408"
    " --num-attention-heads 96 --num-query-groups 8 --kv-channels 128 --vocab-size 151552 --rotary-base 1000000"
    " --rotary-percent 0.5 --untie-embeddings-and-output-weights --add-qkv-bias --num-experts 128 --moe-router-topk 8"
    " --moe-shared-expert-intermediate-size 1408 --moe-layer-freq [0]*1+[1]*45 --moe-router-score-function sigmoid",
    "moonlight-16b-a3b": "--num-layers 27 --hidden-size 2048 --ffn-hidden-size 11264 --moe-ffn-hidden-size 1408"
    " --num-attention-heads 16 --kv-channels 128 --vocab-size 163840 --rotary-base 50000 --norm-epsilon 1e-5"
    " --untie-embeddings-and-output-weights --multi-latent-attention --kv-lora-rank 512 --qk-head-dim 128"
    " --qk-pos-emb-head-dim 64 --v-head-dim 128 --qk-layernorm --num-experts 64 --moe-router-topk 6"
    " --moe-shared-expert-intermediate-size 2816 --moe-layer-freq [0]*1+[1]*26 --moe-router-score-function sigmoid"
    " --moe-router-group-topk 1 --moe-router-num-groups 1 --moe-router-topk-scaling-factor 2.446",
    "glm4.7-flash-30b-a3b": "--num-layers 47 --hidden-size 2048 --ffn-hidden-size 10240 --moe-ffn-hidden-size 1536"
    " --num-attention-heads 20 --kv-channels 192 --vocab-size 154880 --rotary-base 1000000 --add-qkv-bias"
    " --untie-embeddings-and-output-weights --multi-latent-attention --q-lora-rank 768 --kv-lora-rank 512"
    " --qk-head-dim 192 --qk-pos-emb-head-dim 64 --v-head-dim 256 --qk-layernorm --num-experts 64 --moe-router-topk 4"
    " --moe-shared-expert-intermediate-size 1536 --moe-layer-freq [0]*1+[1]*46 --moe-router-score-function sigmoid"
    " --moe-router-topk-scaling-factor 1.8",
    "minimax-m2-229b-a10b": "--num-layers 62 --hidden-size 3072 --ffn-hidden-size 1536 --moe-ffn-hidden-size 1536"
    " --num-attention-heads 48 --num-query-groups 8 --kv-channels 128 --vocab-size 200064 --rotary-base 5000000"
    " --rotary-percent 0.5 --untie-embeddings-and-output-weights --qk-layernorm --num-experts 256 --moe-router-topk 8"
    " --moe-layer-freq [1]*62 --moe-router-score-function sigmoid --spec plugins.minimax_m2 get_layers",
    "qwen3-next-80b-a3b": "--num-layers 48 --hidden-size 2048 --ffn-hidden-size 5120 --moe-ffn-hidden-size 512"
    " --num-attention-heads 16 --num-query-groups 2 --kv-channels 256 --vocab-size 151936 --rotary-base 10000000"
    " --rotary-percent 0.25 --untie-embeddings-and-output-weights --qk-layernorm --num-experts 512 --moe-router-topk 10"
    " --moe-shared-expert-intermediate-size 512 --moe-shared-expert-gate --attention-output-gate"
    " --apply-layernorm-1p --spec plugins.qwen3_next get_layers",
    "qwen3.5-27b": "--num-layers 64 --hidden-size 5120 --ffn-hidden-size 17408 --num-attention-heads 24"
    " --num-query-groups 4 --kv-channels 256 --vocab-size 248320 --rotary-base 10000000 --rotary-percent 0.25"
    " --untie-embeddings-and-output-weights --qk-layernorm --attention-output-gate --apply-layernorm-1p"
    " --spec plugins.qwen3_5 get_layers",
    "qwen3.5-35b-a3b": "--num-layers 40 --hidden-size 2048 --ffn-hidden-size 512 --moe-ffn-hidden-size 512"
    " --num-attention-heads 16 --num-query-groups 2 --kv-channels 256 --vocab-size 248320 --rotary-base 10000000"
    " --rotary-percent 0.25 --untie-embeddings-and-output-weights --qk-layernorm --num-experts 256"
    " --moe-router-topk 8 --moe-shared-expert-intermediate-size 512 --moe-shared-expert-gate"
    " --attention-output-gate --apply-layernorm-1p --spec plugins.qwen3_5 get_layers",
    "mimo-7b": "--num-layers 36 --hidden-size 4096 --ffn-hidden-size 11008 --num-attention-heads 32"
    " --num-query-groups 8 --vocab-size 151680 --rotary-base 640000 --add-qkv-bias"
    " --untie-embeddings-and-output-weights --mtp-num-layers 1",
    "qwen3-30b-a3b": "--num-layers 48 --hidden-size 2048 --ffn-hidden-size 6144 --moe-ffn-hidden-size 768"
    " --num-attention-heads 32 --num-query-groups 4 --kv-channels 128 --vocab-size 151936 --rotary-base 1000000"
    " --untie-embeddings-and-output-weights --qk-layernorm --num-experts 128 --moe-router-topk 8",
}


@pytest.mark.parametrize("name", SIZES)
def test_a_known_model_is_found_by_its_sizes_and_by_all_of_them(tmp_path: Path, name: str) -> None:
    assert keys(of_flags(tmp_path, SIZES[name]))["model.name"] == name
    for change in (
        "--num-layers 2",
        "--hidden-size 64",
        "--vocab-size 7",
        "--rotary-base 3",
        "--spec x",
    ):
        assert of_flags(tmp_path, f"{SIZES[name]} {change}").model is None, change


@pytest.mark.parametrize("frequency", ["[0]*2+[1]*44", "[1]*46", "[1]*45+[0]*1", "[0]*1+[1]*44", "2", "[0"])
def test_layers_without_experts_have_to_be_those_of_the_model(tmp_path: Path, frequency: str) -> None:
    assert of_flags(tmp_path, f"{SIZES['glm4.5-106b-a12b']} --moe-layer-freq {frequency}").model is None
    listed = f"[0,{','.join('1' * 45)}]"
    assert of_flags(tmp_path, f"{SIZES['glm4.5-106b-a12b']} --moe-layer-freq {listed}").model is not None


def test_a_layout_that_is_not_possible_becomes_the_nearest_that_is(tmp_path: Path) -> None:
    """Every key passes the check that would refuse the script's own sizes."""
    wanted = "--num-rollout 1 --tensor-model-parallel-size 4 --sequence-parallel --expert-model-parallel-size 8"
    found = of_flags(tmp_path, f"{SIZES['qwen3-30b-a3b']} {wanted}")
    (tmp_path / "run.yaml").write_text(found.text)
    config = load_run_file(tmp_path / "run.yaml")
    assert list(shape_divides(config, found.shape)) == []
    tensor = config.placement.tensor_parallel
    assert config.placement.sequence_parallel is (tensor > 1)
    lost = {one.flag: one.loses for one in found.draft.lost}
    assert (lost.get("--tensor-model-parallel-size 4") == "memory") is (tensor < 4)


def test_a_row_of_states_is_on_one_rank(tmp_path: Path) -> None:
    flags = "--num-rollout 1 --actor-num-gpus-per-node 8 --context-parallel-size 4 --expert-model-parallel-size 8"
    found = of_flags(tmp_path, f"{SIZES['qwen3-next-80b-a3b']} {flags}")
    assert keys(found)["placement.context_parallel"] == 1
    assert {one.flag: one.loses for one in found.draft.lost}["--context-parallel-size 4"] == "memory"


def test_tensor_parallel_with_experts_wants_what_the_checks_want(tmp_path: Path) -> None:
    flags = "--num-rollout 1 --actor-num-gpus-per-node 8 --tensor-model-parallel-size 4"
    found = of_flags(tmp_path, f"{SIZES['qwen3-30b-a3b']} {flags}")
    sizes = ("tensor_parallel", "expert_parallel", "sequence_parallel")
    assert [keys(found)[f"placement.{name}"] for name in sizes] == [4, 4, True]
    (tmp_path / "run.yaml").write_text(found.text)
    assert list(shape_divides(load_run_file(tmp_path / "run.yaml"), found.shape)) == []


@pytest.mark.parametrize(("cut", "expert"), [(1, 4), (2, 2), (4, None)])
def test_experts_are_cut_as_the_script_says(tmp_path: Path, cut: int, expert: int | None) -> None:
    flags = "--num-rollout 1 --actor-num-gpus-per-node 8 --tensor-model-parallel-size 4 --expert-tensor-parallel-size"
    found = of_flags(tmp_path, f"{SIZES['qwen3-30b-a3b']} {flags} {cut}")
    assert keys(found).get("placement.expert_parallel") == expert
    assert keys(found).get("placement.expert_tensor_parallel", 1) == cut
    (tmp_path / "run.yaml").write_text(found.text)
    assert list(shape_divides(load_run_file(tmp_path / "run.yaml"), found.shape)) == []


@pytest.mark.parametrize(("said", "expert"), [("", 8), ("--expert-tensor-parallel-size 1", 2)])
def test_whole_experts_of_a_script_that_cuts_them_unsaid_take_as_much_memory(
    tmp_path: Path, said: str, expert: int
) -> None:
    flags = "--num-rollout 1 --actor-num-gpus-per-node 8 --tensor-model-parallel-size 4 --expert-model-parallel-size 2"
    found = of_flags(tmp_path, f"{SIZES['qwen3-30b-a3b']} {flags} {said}")
    assert keys(found)["placement.expert_parallel"] == expert
    assert "placement.expert_tensor_parallel" not in keys(found)
    (tmp_path / "run.yaml").write_text(found.text)
    assert list(shape_divides(load_run_file(tmp_path / "run.yaml"), found.shape)) == []


def test_heads_of_states_are_shared_out(tmp_path: Path) -> None:
    flags = "--num-rollout 1 --actor-num-gpus-per-node 8 --tensor-model-parallel-size"
    found = of_flags(tmp_path, f"{SIZES['qwen3.5-27b']} {flags} 4")
    assert keys(found)["placement.tensor_parallel"] == 4
    more = of_flags(tmp_path, f"{SIZES['qwen3.5-27b']} {flags} 8")
    assert keys(more)["placement.tensor_parallel"] == 4
    assert {one.flag: one.why for one in more.draft.lost}["--tensor-model-parallel-size 8"] == (
        "a divisor of the 4 query groups (key/value heads) of the model"
    )


def test_a_model_of_no_family_is_named_as_such(tmp_path: Path) -> None:
    found = of_flags(tmp_path, "--num-layers 2 --hidden-size 8 --attention-output-gate")
    assert (found.model, found.unknown_family) == (None, "gated attention")
    other = of_flags(tmp_path, f"{SIZES['moonlight-16b-a3b']} --moe-router-score-function softmax")
    assert other.unknown_family == "multi-latent attention without a sigmoid router"
    assert "which no family of `ebbtide models` has" in summary(found, "x")


def test_the_run_file_passes_every_check_once_its_files_are_there(tmp_path: Path) -> None:
    write_run(tmp_path)
    found = imported(tmp_path, TINY)
    (tmp_path / "run.yaml").write_text(found.text)
    overrides = ["placement.device=cpu", "placement.engines_per_node=1"]
    config = check_run_file(tmp_path / "run.yaml", overrides)
    assert config == load_run_file(tmp_path / "run.yaml", overrides)
    assert config.algorithm.loss_aggregation == "sample_mean"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("echo train.py\n", "found no start of slime's train.py; wanted a launch script of slime"),
        ("A=(", "line 1: found no end of A=(; wanted words and a closing )"),
        (None, "No such file"),
    ],
)
def test_a_script_that_cannot_be_read_is_told(tmp_path: Path, text: str | None, told: str) -> None:
    script = tmp_path / "x.sh"
    if text is not None:
        script.write_text(text)
    with pytest.raises(ScriptError, match="found") as error:
        import_script(script)
    assert told in str(error.value)


def test_a_python_launcher_is_told_what_is_wanted(tmp_path: Path) -> None:
    with pytest.raises(ScriptError, match="found a Python program; wanted a launch script in bash"):
        import_script(tmp_path / "run.py")


def test_the_command_writes_the_file_and_tells_the_rest(tmp_path: Path) -> None:
    imported(tmp_path, SCRIPT)
    out = tmp_path / "run.yaml"
    done = ebbtide("import-slime", str(tmp_path / "run-mine.sh"), "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert "no counterpart (speed): --update-weight-mode" in done.stderr
    assert load_run_file(out).rollout.num_rollout == 300
    again = ebbtide("import-slime", str(tmp_path / "run-mine.sh"), "--out", str(out))
    assert again.returncode == 2
    assert "found a file there" in again.stderr
    refused = ebbtide("import-slime", str(tmp_path / "none.sh"))
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "Traceback" not in refused.stderr


def test_flags_of_a_file_count_before_those_of_the_script(tmp_path: Path) -> None:
    file = tmp_path / "more.yaml"
    file.write_text("{use_tis: true, tis_clip: 3.5, use_opsm: false, lr: 1e-5, rollout_stop_token_ids: [5, 6]}")
    found = of_flags(tmp_path, f"--num-rollout 3 --lr 2e-6 --use-opsm --custom-config-path {file}")
    said = keys(found)
    assert (said["algorithm.importance"], said["algorithm.importance_high"], said["train.lr"]) == ("tis", 3.5, 1e-5)
    assert (said["rollout.stop_token_ids"], "algorithm.opsm_delta" in said) == ([5, 6], False)
    assert (found.mistakes, found.draft.lost) == ([], [])
    file.write_text("{use_tis: true, max_turns: 4, env_path: e.py}")
    (lost,) = of_flags(tmp_path, f"--num-rollout 3 --custom-config-path {file}").draft.lost
    assert (lost.why, lost.loses) == ("max_turns, env_path: options are keys of the run file", "code")


def test_a_critic_of_a_file_of_roles_has_its_own_rate(tmp_path: Path) -> None:
    file = tmp_path / "roles.yaml"
    actor, critic = "{lr: 3e-6, save: /x}", "{lr: 1e-5, lr_warmup_iters: 7, save: /y, clip_grad: 2.0}"
    file.write_text(f"megatron: [{{role: actor, overrides: {actor}}}, {{role: critic, overrides: {critic}}}]")
    flags = f"--num-rollout 30 --lr 2e-6 --megatron-config-path {file}"
    found = of_flags(tmp_path, f"{flags} --advantage-estimator ppo")
    said = keys(found)
    assert (said["train.lr"], said["critic.lr"], said["critic.lr_warmup_steps"]) == (3e-6, 1e-5, 7)
    assert [(one.why, one.loses) for one in found.draft.lost] == [
        ("clip_grad: a critic has few settings of its own", "result")
    ]
    assert found.mistakes == []
    assert "critic.lr" not in keys(of_flags(tmp_path, flags))


def test_files_of_flags_that_are_not_here_stay_flags(tmp_path: Path) -> None:
    found = of_flags(tmp_path, "--num-rollout 3 --custom-config-path no.yaml --megatron-config-path no.yaml")
    assert {(one.flag, one.loses) for one in found.draft.lost} == {
        ("--custom-config-path no.yaml", "code"),
        ("--megatron-config-path no.yaml", "result"),
    }


EVAL_CONFIG = """
eval:
  defaults: {n_samples_per_eval_prompt: 16, top_p: 0.7, rm_type: math}
  datasets:
    - {name: aime, path: /d/aime.jsonl, rm_type: deepscaler}
    - {name: gpqa, path: /d/gpqa.jsonl, rm_type: gpqa}
    - {name: boxed, path: /d/boxed.jsonl, rm_type: boxed_f1}
    - {name: plain, path: /d/plain.jsonl}
    - {name: ifbench, path: /d/ifbench.jsonl, rm_type: ifbench}
    - {name: mine, path: /d/mine.jsonl, custom_rm_path: a.b.score}
    - {name: asked, path: /d/asked.jsonl, rm_type: remote_rm}
"""


def with_eval_config(folder: Path, flags: str) -> Imported:
    (folder / "sets.yaml").write_text(EVAL_CONFIG)
    return of_flags(folder, f"--num-rollout 3 --eval-interval 2 --eval-config {folder / 'sets.yaml'} {flags}")


def test_each_set_of_an_evaluation_config_keeps_its_reward(tmp_path: Path) -> None:
    found = with_eval_config(tmp_path, "--rm-type deepscaler --rm-url http://judge/")
    said = {key.split(".")[2]: value for key, value in keys(found).items() if key.endswith(".reward")}
    assert said == {
        "gpqa": {"type": "choice"},
        "boxed": {"type": "f1"},
        "plain": {"type": "math"},
        "ifbench": {"type": "ifbench.py:score"},
        "mine": {"type": "a.b:score"},
        "asked": {"type": "http", "options": {"url": "http://judge/"}},
    }
    assert [one.why for one in found.draft.losses("task", "code", "result")] == [
        "no reward named ifbench is built in",
        "a.b.score has another interface",
    ]
    assert found.mistakes == []
    (tmp_path / "mine.yaml").write_text(found.text)
    config = load_run_file(tmp_path / "mine.yaml")
    assert [reward_of(config, name).type for name in ("aime", "gpqa")] == ["deepscaler", "choice"]


OFF = "'{\"enable_thinking\": false}'"


@pytest.mark.parametrize(
    ("flags", "options", "lost"),
    [
        (
            "--apply-chat-template --apply-chat-template-kwargs '{\"enable_thinking\": false}'",
            {"enable_thinking": False},
            0,
        ),
        ("--apply-chat-template-kwargs '{\"enable_thinking\": false}'", None, 0),
        ("--apply-chat-template --apply-chat-template-kwargs '{}'", None, 0),
        ("--apply-chat-template --apply-chat-template-kwargs thinking", None, 1),
    ],
    ids=["given", "no template", "none", "no mapping"],
)
def test_variables_of_the_chat_template(tmp_path: Path, flags: str, options: object, lost: int) -> None:
    found = of_flags(tmp_path, f"--num-rollout 3 {flags} --eval-interval 2 --eval-prompt-data a /d/a.jsonl")
    said = keys(found)
    for place in ("data", "eval.sets.a"):
        assert said.get(f"{place}.chat_template_options") == options
    assert sum("chat-template-kwargs" in one.flag for one in found.draft.lost) == lost


OWN_GENERATION = """
eval:
  defaults: {input_key: question, min_new_tokens: 4}
  datasets:
    search: {path: /d/search.jsonl, custom_generate_function_path: tools.search.generate, temperature: 0.6, top_k: 20}
    same: {path: /d/same.jsonl, custom_generate_function_path: a.b.solve, apply_chat_template: true, label_key: answer,
      apply_chat_template_kwargs: {enable_thinking: false}}
    odd: {path: /d/odd.jsonl, stop: [END], stop_token_ids: [7], repetition_penalty: 1.1, app_service: u, no_such: 1}
"""


def of_own_generation(folder: Path, flags: str) -> Imported:
    (folder / "sets.yaml").write_text(OWN_GENERATION)
    return of_flags(folder, f"--num-rollout 3 --eval-interval 2 --eval-config {folder / 'sets.yaml'} {flags}")


def test_a_set_is_answered_by_its_own_function_and_sampled_and_read_as_it_says(tmp_path: Path) -> None:
    found = of_own_generation(tmp_path, "--custom-generate-function-path a.b.solve --rollout-stop-token-ids 7")
    said = keys(found)
    assert found.mistakes == []
    assert {key: value for key, value in said.items() if key.endswith("generate")} == {
        "rollout.generate": "a.b:solve",
        "eval.sets.search.generate": "tools.search:generate",
    }
    assert (said["eval.sets.search.temperature"], said["eval.sets.search.top_k"]) == (0.6, 20)
    assert (said["eval.sets.search.apply_chat_template"], said["eval.sets.same.apply_chat_template"]) == (False, True)
    assert (said["eval.sets.same.label_key"], said["eval.sets.odd.prompt_key"]) == ("answer", "question")
    assert said["eval.sets.same.chat_template_options"] == {"enable_thinking": False}
    assert {(one.why.partition(":")[0], one.loses) for one in found.draft.lost if "--eval-config" in one.flag} == {
        ("min_new_tokens of defaults", "result"),
        ("tools.search.generate has another interface", "code"),
        ("stop of odd", "result"),
        ("repetition_penalty of odd", "result"),
        ("app_service of odd", "code"),
        ("no_such of odd", "result"),
    }


def test_a_set_has_no_stop_tokens_of_its_own(tmp_path: Path) -> None:
    lost = of_own_generation(tmp_path, "").draft.losses("result")
    assert "set rollout.stop_token_ids" in [one.do for one in lost]


def test_an_evaluation_config_that_is_no_yaml_is_told(tmp_path: Path) -> None:
    (tmp_path / "sets.yaml").write_text("eval: [")
    (lost,) = of_flags(tmp_path, f"--num-rollout 3 --eval-interval 2 --eval-config {tmp_path / 'sets.yaml'}").draft.lost
    assert lost.why.startswith("the file cannot be read (")


def test_evaluations_have_their_own_number_of_a_reward_and_room_for_prompts(tmp_path: Path) -> None:
    own = "--reward-key a --eval-reward-key b --eval-max-context-len 900 --eval-max-response-len 500"
    found = of_flags(tmp_path, f"--num-rollout 3 --eval-interval 2 --eval-prompt-data s /d/s.jsonl --rm-type f1 {own}")
    assert (keys(found)["reward.key"], found.draft.lost) == ("a", [])
    assert keys(found)["eval.sets.s.reward"] == {"type": "f1", "key": "b"}
    assert keys(found)["eval.sets.s.max_prompt_tokens"] == 400


def test_a_trainer_that_learns_the_rounding_of_its_engines_is_another_training(tmp_path: Path) -> None:
    variables = '{"env_vars": {"OPEN_TRAINING_INT4_FAKE_QAT_FLAG": "1", "NVTE_FP8_BLOCK_SCALING_FP32_SCALES": "1"}}'
    found = imported(tmp_path, SCRIPT.replace('{"env_vars": {"PYTHONPATH": "/x", "NCCL_IB_TC": "160"}}', variables))
    (lost,) = (one for one in found.draft.losses("result") if "rounding" in one.do)
    assert lost.flag == "OPEN_TRAINING_INT4_FAKE_QAT_FLAG"
    assert "variables of the script" not in found.text


def test_a_function_of_the_script_scores_sets_that_have_none(tmp_path: Path) -> None:
    said = keys(with_eval_config(tmp_path, "--custom-rm-path mine.score"))
    assert [key for key in said if key.endswith(".reward")] == ["eval.sets.mine.reward"]


def test_rows_that_are_learnt_have_no_reward_in_their_sets(tmp_path: Path) -> None:
    found = with_eval_config(tmp_path, SUPERVISED.replace("--num-rollout 3 ", ""))
    assert not [key for key in keys(found) if key.endswith(".reward")]


@pytest.mark.parametrize(
    ("model", "flags", "weights"),
    [
        ("Qwen3-4B-FP8", "--rollout-num-gpus-per-engine 2", "fp8"),
        ("Qwen3-4B", "--rollout-num-gpus-per-engine 2", None),
        ("Qwen3-4B-FP8", "--rollout-num-gpus-per-engine 8", None),
        ("Qwen3-4B-INT4", "", None),
    ],
    ids=["fp8", "whole", "blocks that are cut", "int4"],
)
def test_engines_have_fp8_where_slimes_have(tmp_path: Path, model: str, flags: str, weights: str | None) -> None:
    """A script of a known model whose sizes 128 divides on each rank; else the engines' memory is what is lost."""
    sizes = "--num-layers 36 --hidden-size 2560 --ffn-hidden-size 9728 --num-attention-heads 32 --qk-layernorm "
    sizes += "--group-query-attention --num-query-groups 8 --kv-channels 128 --vocab-size 151936 --swiglu "
    weights_of = f"--hf-checkpoint /m/{model} --ref-load /m/Qwen3-4B_torch_dist"
    found = of_flags(tmp_path, f"{sizes} --rotary-base 1000000 {weights_of} --colocate {flags}")
    setting = found.draft.settings.get("placement.engine_weights")
    assert (setting.value if setting else None) == weights
    assert any(one.loses == "memory" for one in found.draft.lost) == (weights is None and model != "Qwen3-4B")
