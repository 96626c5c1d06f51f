"""A whole run of a model with experts, which two trainer ranks share out, with a critic and a KL in the rewards.

A server scores its responses.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from core.trajectory import read_step, step_path
from modelcfg.families import families
from tests.support.judge import judging, score
from tests.support.quantise import quantise
from tests.support.ranks import run_ranks
from tests.support.tiny_models import EXPERTS, SIGMOID_EXPERTS, WHOLE_NORMS, with_layer_behind
from tests.support.tiny_runs import ebbtide, events, write_run

pytestmark = pytest.mark.run


@pytest.mark.parametrize(
    "kind", [EXPERTS, *(pytest.param(x, marks=pytest.mark.slow) for x in ("glm4_moe", WHOLE_NORMS))]
)
def test_engines_get_the_experts_of_all_ranks(tmp_path: Path, kind: str) -> None:
    """Every sync is proven, engine and trainer agree, and the model that is saved is the trained one.

    The files of one of them are quantised: its engines have no weights until a sync. Both ranks of the engine have the
    whole attention, each for samples of its own.
    """
    import numpy as np
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    run_dir = tmp_path / "out"
    told = not families()[kind].tells_no_experts
    run_file = write_run(
        tmp_path,
        kind=kind,
        placement={
            **{"device": "cpu", "trainers_per_node": 2, "expert_parallel": 2, "check_sync": 1},
            **{"engine_tensor_parallel": 2, "engine_options": {"enable_dp_attention": True, "dp_size": 2}},
        },
        rollout={"num_rollout": 3},
        train={"use_distributed_optimizer": True},
        algorithm={"advantage_estimator": "gae", "kl_coef": 0.1, "routing_replay": "engine" if told else "none"},
    )
    if kind in SIGMOID_EXPERTS:
        with_layer_behind(tmp_path / "model")
    whole = tmp_path / "model"
    if kind == EXPERTS:
        whole = whole.rename(tmp_path / "whole")
        quantise(whole, tmp_path / "model", "fp8")
    planned = ebbtide("plan", str(run_file))
    assert planned.returncode == 0, planned.stdout + planned.stderr
    with judging() as judge:
        reward = ("reward.type=http", "reward.path=null", f"reward.options={{url: '{judge.url}'}}")
        said = [word for one in reward for word in ("--set", one)]
        done = ebbtide("run", str(run_file), "--run-dir", str(run_dir), *said)
    assert done.returncode == 0, done.stdout + done.stderr
    metrics = [event["metrics"] for event in events(run_dir, "step")]
    assert len(metrics) == 3
    assert all(m["train/train_rollout_logprob_abs_diff"] < 1e-5 for m in metrics)
    assert all(m["train/train_rollout_logprob_abs_diff_max"] < 1e-3 for m in metrics)
    assert all("train/critic_grad_norm" in m for m in metrics)
    records = [read_step(step_path(run_dir, step)) for step in range(3)]
    texts = [[text.replace("␀", "\0") for text in record.response_text] for record in records]  # as HDF5 has it
    asked = [(one["step"], one["response"]) for one in judge.asked]
    assert sorted(asked) == sorted((step, text) for step, made in enumerate(texts) for text in made)
    for record, made in zip(records, texts, strict=True):
        assert record.reward.tolist() == pytest.approx([score(text) for text in made])
    assert abs(metrics[0]["train/kl_in_reward"]) < 1e-5 < abs(metrics[2]["train/kl_in_reward"])
    first, last = records[0], records[2]
    assert (first.routing is not None) == told
    if told:
        agreement = [m["train/routing_agreement_first"] for m in metrics]
        assert agreement[0] == 1.0, "the engine's choice is the trainer's"
        assert min(agreement) > 0.999
    if first.routing is not None:
        fed = first.prompt_tokens.lengths + first.response_tokens.lengths - 1
        assert first.routing.lengths.tolist() == fed.tolist(), "the engine has told of all tokens that it was fed"
        replays = {"model": str(tmp_path / "model"), "config": {"algorithm": {"routing_replay": "engine"}}}
        action = ["replayed_from_store", str(step_path(run_dir, 0))]
        (update,) = run_ranks(tmp_path / "ranks", 1, {"": {**replays, "actions": [action]}})[""]
        assert update["same"] == [True, True]
        assert update["own"][0], "with the engine's weights the trainer's routers choose the same for every token"
    for record, is_the_policy in ((first, True), (last, False)):
        assert record.logprobs_ref is not None
        gap = np.abs(record.logprobs_ref.values - record.logprobs_old.values).max()
        assert (gap < 1e-5) == is_the_policy, gap
    before, after = (load_file(folder / "model.safetensors") for folder in (whole, run_dir / "hf"))
    assert before.keys() == after.keys()
    carried = [name for name in before if name.startswith("model.layers.4.")]
    assert len(carried) == 2 * (kind in SIGMOID_EXPERTS)
    assert all(torch.equal(before[name], after[name]) for name in carried)
    biases = [name for name in before if name.endswith("e_score_correction_bias")]
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert {name for name in same if ".experts." not in name} == {*carried, *biases}
    assert len(same) < 0.4 * len(before), "but for experts that no token chose"
    AutoModelForCausalLM.from_pretrained(run_dir / "hf", dtype=torch.float32)
    again = ["replay", str(run_dir), "--step", "2", "--run-dir", str(tmp_path / "again")]
    other = ebbtide(*again, "--set", "critic.lr=0")
    assert (other.returncode, "critic.lr: found 0" in other.stderr) == (2, True), other.stderr
    done = ebbtide(*again)
    assert done.returncode == 0, done.stdout + done.stderr
    repeated = read_step(step_path(tmp_path / "again", 2))
    assert last.token_advantage is not None
    assert repeated.token_advantage is not None
    np.testing.assert_array_equal(repeated.token_advantage.values, last.token_advantage.values)
    if last.routing is not None:
        assert repeated.routing is not None
        np.testing.assert_array_equal(repeated.routing.values, last.routing.values)
    for name in ("train/loss", "train/grad_norm", "train/value_loss", "train/kl_in_reward"):
        assert repeated.metrics[name] == last.metrics[name], name


def test_engines_get_experts_that_are_cut(tmp_path: Path) -> None:
    """Every sync is proven, engine and trainer agree after an update, and a resumed run has experts whole again."""
    from transformers import AutoModelForCausalLM

    run_dir, cut = tmp_path / "out", {"tensor_parallel": 2, "sequence_parallel": True, "expert_tensor_parallel": 2}
    placement = {"device": "cpu", "trainers_per_node": 2, "check_sync": 1, **cut}
    run_file = write_run(tmp_path, kind=EXPERTS, placement=placement, rollout={"num_rollout": 2})
    done = ebbtide("run", str(run_file), "--run-dir", str(run_dir))
    assert done.returncode == 0, done.stdout + done.stderr
    whole = ("placement.expert_tensor_parallel=1", "placement.expert_parallel=2", "rollout.num_rollout=3")
    done = ebbtide("resume", str(run_dir), *(word for one in whole for word in ("--set", one)))
    assert done.returncode == 0, done.stdout + done.stderr
    metrics = [event["metrics"] for event in events(run_dir, "step")]
    assert len(metrics) == 3
    assert all(m["train/train_rollout_logprob_abs_diff"] < 1e-5 for m in metrics)
    assert all(m["train/grad_norm"] > 0 for m in metrics)
    AutoModelForCausalLM.from_pretrained(run_dir / "hf")
