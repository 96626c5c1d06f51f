"""bench/moe_run.py where there is no GPU: its run file, its plan, its weights, why it does not begin, its figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import modelcfg
from bench import moe_run
from bench.gpu_watch import Reading, peaks
from bench.moe_task import Task, run_values, write_inputs, write_words
from bench.random_weights import DEVIATION, write_random_model
from core.checks import check_run_file
from core.config.schema import RunConfig
from core.planner import MemoryPlan, plan_memory, problems
from core.pretrained.weight_files import misfits, stored_tensors
from hpc.node.host_memory import HostMemory
from modelcfg import ModelShape
from tests.support.plans import GIB, H100, H200

TINY = {"num_layers": 2, "hidden_size": 64, "ffn_hidden_size": 32, "num_attention_heads": 4, "num_query_groups": 2}
TINY |= {"head_dim": 32, "vocab_size": 512, "num_experts": 8, "experts_per_token": 2}
TRIALS = [Task(), Task(layers=6, gpus=1, engine_gpus=1, groups=8), Task(layers=12, gpus=2, engine_gpus=2, groups=16)]


def tiny() -> ModelShape:
    return modelcfg.load("qwen3-30b-a3b").model_copy(update=TINY)


class TinyTask(Task):
    """The task with a model for a CPU."""

    @property
    def shape(self) -> ModelShape:
        return tiny()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_model(tiny(), tmp_path_factory.mktemp("m") / "model", pool=5000)


def test_weights_are_those_of_the_family_and_random(model: Path) -> None:
    from safetensors.torch import load_file

    index = json.loads((model / "model.safetensors.index.json").read_text())
    tensors = {name: tensor for file in model.glob("*.safetensors") for name, tensor in load_file(file).items()}
    assert set(index["weight_map"]) == set(tensors)
    assert list(misfits(model, stored_tensors(model), tiny())) == []
    norms = [tensor for name, tensor in tensors.items() if name.endswith("norm.weight")]
    assert len(norms) == 2 * 4 + 1
    assert all((norm == 1).all() for norm in norms)
    experts = [tensor for name, tensor in tensors.items() if "experts" in name and "gate_proj" in name]
    assert len(experts) == 2 * 8
    assert not any(torch.equal(a, b) for i, a in enumerate(experts) for b in experts[:i])
    assert torch.cat([expert.flatten() for expert in experts]).float().std() == pytest.approx(DEVIATION, rel=0.05)
    assert index["metadata"]["total_size"] == 2 * modelcfg.num_parameters(tiny())


def test_a_prompt_of_512_words_is_one_of_512_tokens(tmp_path: Path) -> None:
    from core.pretrained.tokenizer import load_tokenizer

    write_words(600, tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.encode("w17 w599 </s>") == [17, 599, 2]
    assert tokenizer.decode([17, 599]) == "w17 w599"


@pytest.mark.parametrize("task", TRIALS, ids=["whole", "one GPU", "two GPUs"])
def test_the_runs_fit_an_h200_by_plan(task: Task) -> None:
    config, _ = moe_run.planned(task, H200)
    plan = plan_memory(config, task.shape, H200)
    assert problems(config, task.shape, plan) == []
    assert plan.fits(share=0.95)
    assert plan.cache is not None
    assert plan.cache.samples(512 + 4096) >= config.placement.engine_max_running_requests, "all samples at a time"
    assert not plan.streamed


def test_the_whole_model_is_planned_on_eight_h100_too() -> None:
    config, _ = moe_run.planned(Task(), H100)
    assert plan_memory(config, Task().shape, H100).fits(share=0.95)


def test_the_run_file_passes_every_check(tmp_path: Path) -> None:
    task = TinyTask(gpus=2, engine_gpus=1, groups=4, prompt=16, answer=(8, 32), row_tokens=256)
    file = write_inputs(task, tmp_path, run_values(task), pool=5000)
    checked = check_run_file(file)
    assert (checked.rollout.rollout_batch_size, checked.placement.expert_parallel) == (4, 2)
    prompts = [json.loads(line)["prompt"] for line in (tmp_path / "prompts.jsonl").read_text().splitlines()]
    assert [len(prompt.split()) for prompt in prompts] == [16] * 4
    assert len(set(prompts)) == 4


def test_without_gpus_it_says_so_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr("sys.argv", ["moe_run.py", "--folder", str(tmp_path / "here")])
    monkeypatch.setattr(moe_run, "ask", list)
    assert moe_run.main() == 2
    told = capsys.readouterr()
    assert "found 0 GPUs (nvidia-smi); wanted 8: run it on such a machine, or a trial with --layers 6" in told.err
    assert not (tmp_path / "here").exists()


def test_a_gpu_in_use_and_too_few_are_told() -> None:
    used = [(0, 140 * GIB), (9 * GIB, 140 * GIB)]
    assert list(moe_run.gpus_wrong(used, TRIALS[2])) == [
        "found 9.0 GiB in use on GPU 1; wanted it idle: end what runs there"
    ]
    assert len(list(moe_run.gpus_wrong(used, Task()))) == 2
    assert list(moe_run.gpus_wrong(used, TRIALS[1])) == []


def test_a_small_disk_and_a_small_host_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 60 * GIB})())
    (wrong,) = moe_run.room_wrong(Task(), tmp_path / "not" / "there")
    assert wrong.startswith("found 60 GiB of room in ")
    assert wrong.endswith("; wanted 61: set --folder to a larger disk")
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 62 * GIB})())
    assert list(moe_run.room_wrong(Task(), tmp_path)) == []
    config, _ = moe_run.planned(Task(), H200)
    plan = plan_memory(config, Task().shape, H200)
    monkeypatch.setattr("bench.moe_run.host_memory", lambda: HostMemory(plan.host_bytes))
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"available": plan.host_bytes - 1})())
    (wrong,) = moe_run.host_wrong(plan)
    assert "of host memory; wanted " in wrong
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"available": plan.host_bytes})())
    assert moe_run.host_wrong(plan) == []


def test_gpus_that_are_too_small_are_refused_by_the_plan() -> None:
    config, _ = moe_run.planned(TRIALS[0], H100)
    assert list(moe_run.plan_wrong(config, TRIALS[0], H100)) == []
    whole = Task(gpus=1, engine_gpus=1, groups=8)
    config, _ = moe_run.planned(whole, H100)
    assert any("the smallest machine that would do" in text for text in moe_run.plan_wrong(config, whole, H100))


def test_memory_is_told_by_phase_without_what_was_there_before() -> None:
    entered = [{"phase": phase, "time": time} for phase, time in (("sync", 1.0), ("rollout", 2.0), ("sync", 5.0))]
    readings = [(0.5, 99), (1.5, 5), (1.9, 7), (2.5, 30), (5.0, 6), (9.0, 9)]
    found = peaks([Reading(time, (used, used + 3)) for time, used in readings], entered, beside=(0, 4))
    assert found == {"sync": 9, "rollout": 30}
    assert peaks([], entered) == {}


def step(step_s: float, sync_s: float, tokens: float) -> dict[str, Any]:
    times = {"update_weights": sync_s + 0.3, "rollout": 8.0, "score": 1.0, "train": 4.0, "switch": 0.5, "step": step_s}
    metrics = {f"perf/{name}_time": seconds for name, seconds in times.items()}
    return {"event": "step", "metrics": {**metrics, "rollout/response_tokens": tokens}}


def figures(task: Task, *steps: dict[str, Any], over: float = 1.0) -> tuple[dict[str, Any], MemoryPlan]:
    plan = plan_memory(moe_run.planned(task, H200)[0], task.shape, H200)
    found = {"rc": 0, "events": list(steps), "peaks": {plan.fullest(): int(over * plan.needed_bytes())}}
    found["syncs"] = [round(one["metrics"]["perf/update_weights_time"] - 0.3, 6) for one in steps]
    return moe_run.summary(found, task, plan), plan


def test_figures_are_per_gpu_and_without_the_first_step() -> None:
    facts, plan = figures(Task(), step(99, 9, 1), step(14, 0.4, 80000), step(16, 0.2, 96000))
    assert facts["seconds"]["sync"] == [0.4, 0.2]
    assert facts["seconds"]["sync and switch"] == [0.7, 0.5]
    assert facts["answer_tokens_per_s_per_gpu_rollout"] == (80000 / 64 + 96000 / 64) / 2
    assert facts["all_tokens_per_s_per_gpu_update"] == ((80000 + 64 * 512) / 32 + (96000 + 64 * 512) / 32) / 2
    assert facts["answer_tokens_per_s_per_gpu_step"] == (80000 / 14 / 8 + 96000 / 16 / 8) / 2
    assert facts["peak_over_plan"] == pytest.approx(1.0, abs=0.001)
    assert facts["memory"][plan.fullest()]["plan_gib"] == round(plan.needed_bytes() / GIB, 2)
    assert facts["weights_gb"] == pytest.approx(61.06, abs=0.01)
    assert moe_run.faults(facts, 0, whole=True) == []


@pytest.mark.parametrize(
    ("made", "over", "missed"),
    [
        ((14, 0.4, 71000), 1.0, "634 answer tokens per second and GPU, wanted more than 638"),
        ((14, 0.5, 80000), 1.0, "a sync takes 0.50 s, wanted less than 0.5"),
        ((14, 0.4, 80000), 1.06, "of the plan, wanted within 5%"),
        ((14, 0.4, 80000), 0.94, "of the plan, wanted within 5%"),
    ],
)
def test_what_is_not_as_wanted_is_told(made: tuple[float, float, float], over: float, missed: str) -> None:
    facts, _ = figures(Task(), step(99, 9, 1), step(*made), over=over)
    (told,) = moe_run.faults(facts, 0, whole=True)
    assert missed in told
    assert len(moe_run.faults(facts, 0, whole=False)) == ("plan" in missed), "speed is wanted of the whole model alone"


def test_a_run_that_failed_has_no_figures() -> None:
    facts, _ = figures(Task(), step(99, 9, 1))
    assert facts == {}
    assert moe_run.faults(facts, 3, whole=True) == ["the run ended with 3: see the ends of its logs above"]


def test_the_plan_is_shown_without_a_gpu(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr("sys.argv", ["moe_run.py", "--plan", "h200", "--layers", "6", "--gpus", "1"])
    assert moe_run.main() == 0
    told = capsys.readouterr().out
    assert "expert_parallel: 1" in told
    assert "verdict   fits: " in told


@pytest.mark.run
@pytest.mark.slow
def test_a_run_on_a_cpu_is_measured_and_stopped(tmp_path: Path) -> None:
    task = TinyTask(gpus=1, engine_gpus=1, groups=2, group_size=2, prompt=8, answer=(2, 6), steps=2, row_tokens=64)
    values = run_values(task, recompute=False)
    values["model"]["dtype"] = "float32"
    values["placement"] = {"device": "cpu", "start_timeout_s": 300, "engine_max_total_tokens": 512}
    values["rollout"]["generate_workers"] = 1
    file = write_inputs(task, tmp_path, values, pool=5000)
    found = moe_run.measure(file, tmp_path / "out", task, 400, [])
    assert found["rc"] == 0
    config = RunConfig.model_validate(values)
    facts = moe_run.summary(found, task, plan_memory(config, task.shape, H200))
    (answers,) = facts["answer_tokens_per_step"]
    assert 2 * 4 <= answers <= 6 * 4
    assert [len(facts["seconds"][phase]) for phase in ("sync and switch", "rollout", "update", "step")] == [1, 1, 1, 1]
    assert facts["logprob_gap"][0] < 1e-4
    last = json.loads((tmp_path / "out" / "ledger.jsonl").read_text().splitlines()[-1])
    assert last.get("how") != "complete"
