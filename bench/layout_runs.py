"""Whole runs of a layout of two GPUs, and what its trainer ranks make of stored samples: the parts of `two_gpus.py`."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from tests.support.tiny_models import EXPERTS, GPU_SIZES, SEEING, SINKS, STATEFUL, tiny_model  # noqa: E402
from tests.support.tiny_runs import write_run  # noqa: E402

NUM_STEPS = 3
DEADLINE_S = {"cuda": 300.0, "cpu": 900.0}  # of one run
TWO_TRAINERS = {"trainers_per_node": 2}
DENSE = "qwen3-tied"
EP2 = {**TWO_TRAINERS, "expert_parallel": 2}
CUT = {"tensor_parallel": 2, "sequence_parallel": True}
CHOSEN = {"routing_replay": "engine"}  # the trainer's passes have the experts that the engine chose
LORA = {"lora": {"rank": 8}}
FP8 = {"engine_weights": "fp8"}
INT8 = {"engine_weights": "int8"}
NGRAM = {"engine_options": {"speculative_algorithm": "NGRAM", "speculative_num_draft_tokens": 8}}
DRAFT = "draft"  # the folder of a smaller model, beside the run file
DRAFTS = {"engine_options": {"speculative_algorithm": "STANDALONE", "speculative_draft_model_path": DRAFT}}
BY_SAMPLES = {  # attention of an engine of two ranks
    "engine_tensor_parallel": 2,
    "engine_options": {"enable_dp_attention": True, "dp_size": 2},
}
FP8_CACHE = {"engine_options": {"kv_cache_dtype": "fp8_e4m3"}}
# twice what rounding weights and activations so makes of these random models on a CPU: 0.26, with experts 0.41, Llama
# and GLM-4 0.37 and 0.36, latent attention with experts 0.64, states with experts 0.59, without 0.31
FP8_GAP, FP8_EXPERTS_GAP = 0.5, 0.8
FP8_LLAMA_GAP, FP8_LATENT_GAP, FP8_STATES_GAP, FP8_DENSE_STATES_GAP = 0.75, 1.3, 1.2, 0.65
INT8_GAP, INT8_EXPERTS_GAP = 0.2, 0.4  # the same twice: 0.08 and 0.17, and what bfloat16 rounds else
CRITIC = {"advantage_estimator": "gae"}
EXPERT_SIZES = {**GPU_SIZES, "moe_intermediate_size": 128}
LATENT_SIZES = {  # of heads as DeepSeek-V3 has them: kernels know no others
    **{"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 4, "moe_intermediate_size": 128},
    **{"q_lora_rank": 128, "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128},
}
WIDE_STATES = {"linear_key_head_dim": 128, "linear_value_head_dim": 128}  # as Qwen3-Next and Qwen3.5 have them
STATE_SIZES = {
    **{**EXPERT_SIZES, "shared_expert_intermediate_size": 128, "full_attention_interval": 4},
    **WIDE_STATES,
}
SIZES = {
    **{DENSE: GPU_SIZES, EXPERTS: EXPERT_SIZES, "glm4_moe": EXPERT_SIZES},
    **{"deepseek_v3": LATENT_SIZES, STATEFUL: STATE_SIZES, SEEING: {**GPU_SIZES, **WIDE_STATES}},
    **{SINKS: {**GPU_SIZES, "sliding_window": 16}, "llama": GPU_SIZES, "glm4": GPU_SIZES},
}
AS_RUN = "run"
VARIANTS = {  # of a replay: what the run file says otherwise
    "rounded": {"train": {"max_tokens_per_micro_batch": 128}},  # half of the run's: only the rounding differs
    "float32": {"model": {"dtype": "float32"}, "train": {"cuda_graphs": False}},
}
TORCHRUN = ("-m", "torch.distributed.run")
OF_REPLAYS = {"NCCL_CUMEM_ENABLE": "0", "OMP_NUM_THREADS": "1"}
Steps = list[dict[str, Any]]  # of a replay
TrainerLayout = tuple[str, str]  # a model, and what the run file says of trainer ranks
OF_TRAINERS = (
    *("trainers_per_node", "tensor_parallel", "sequence_parallel", "context_parallel", "expert_parallel"),
    "expert_tensor_parallel",
    *("pipeline_parallel", "pipeline_first_layers"),
)


@dataclass(frozen=True)
class LayoutOfTwo:
    """What the run file says, its model, the GPUs it may see, and whether its engine is killed."""

    placement: Mapping[str, Any] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)
    kind: str = DENSE
    algorithm: Mapping[str, Any] = field(default_factory=dict)
    gpus: str = "0,1"
    killed: bool = False
    beside: str | None = None  # the layout whose samples it learns from again; None: its model's
    gap: float | None = None  # of engine and trainer on GPUs; None: that of bfloat16

    @property
    def trainer_ranks(self) -> int:
        """Number of trainer ranks."""
        return int(self.placement.get("trainers_per_node", 1))

    @property
    def of_trainers(self) -> TrainerLayout:
        """What of it concerns the trainer ranks: layouts that agree in this compute the same."""
        placement = {key: self.placement[key] for key in OF_TRAINERS if key in self.placement}
        return self.kind, json.dumps([placement, dict(self.train), dict(self.algorithm)], sort_keys=True)

    @property
    def reference(self) -> str:
        """Whose samples its trainer ranks learn from again."""
        return self.beside or REFERENCE[self.kind]


LAYOUTS = {
    "alone": LayoutOfTwo(gpus="1"),
    "tp2": LayoutOfTwo({**TWO_TRAINERS, "tensor_parallel": 2}),
    "dp2-distopt": LayoutOfTwo(TWO_TRAINERS, {"use_distributed_optimizer": True}),
    "engine-tp2": LayoutOfTwo({**TWO_TRAINERS, "engine_tensor_parallel": 2}),
    "two-engines": LayoutOfTwo({**TWO_TRAINERS, "engines_per_node": 2}),
    "own_gpus": LayoutOfTwo({"engines": "own_gpus"}),
    "own_gpus-killed": LayoutOfTwo({"engines": "own_gpus"}, gpus="1,0", killed=True),
    "pp2": LayoutOfTwo({**TWO_TRAINERS, "pipeline_parallel": 2}),
    "pp2-uneven": LayoutOfTwo({**TWO_TRAINERS, "pipeline_parallel": 2, "pipeline_first_layers": 1}),
    "dp2-streamed": LayoutOfTwo(TWO_TRAINERS, {"use_distributed_optimizer": True, "optimizer_state": "streamed"}),
    "cp2": LayoutOfTwo({**TWO_TRAINERS, "context_parallel": 2}, {"recompute": "full"}),
    "cp2-distopt": LayoutOfTwo(
        {**TWO_TRAINERS, "context_parallel": 2}, {"recompute": "full", "use_distributed_optimizer": True}
    ),
    "critic": LayoutOfTwo(gpus="0", algorithm=CRITIC, beside="critic"),
    "critic-dp2": LayoutOfTwo(TWO_TRAINERS, algorithm=CRITIC, beside="critic"),
    "lora": LayoutOfTwo(train=LORA, gpus="1", beside="lora"),
    "lora-dp2": LayoutOfTwo(TWO_TRAINERS, LORA, beside="lora"),
    "lora-tp2": LayoutOfTwo({**TWO_TRAINERS, **CUT}, LORA, beside="lora"),
    "fp8": LayoutOfTwo(FP8, gpus="0", gap=FP8_GAP),
    "fp8-own_gpus": LayoutOfTwo({**FP8, "engines": "own_gpus"}, gap=FP8_GAP),
    "fp8-cache": LayoutOfTwo(FP8_CACHE, gpus="1", gap=FP8_GAP),
    "ngram": LayoutOfTwo(NGRAM, gpus="0", beside="ngram"),
    "drafts": LayoutOfTwo(DRAFTS, gpus="0", beside="drafts"),
    "experts-fp8": LayoutOfTwo(FP8, gpus="1", kind=EXPERTS, gap=FP8_EXPERTS_GAP),
    "experts-fp8-ep2": LayoutOfTwo({**EP2, **FP8}, {"use_distributed_optimizer": True}, EXPERTS, gap=FP8_EXPERTS_GAP),
    # each learns from its own samples again; those in int8 so fit on one GPU
    "int8": LayoutOfTwo(INT8, gpus="0", beside="int8", gap=INT8_GAP),
    "experts-int8": LayoutOfTwo(INT8, gpus="0", kind=EXPERTS, beside="experts-int8", gap=INT8_EXPERTS_GAP),
    "fp8-llama": LayoutOfTwo(FP8, kind="llama", gpus="0", beside="fp8-llama", gap=FP8_LLAMA_GAP),
    "fp8-glm4": LayoutOfTwo(FP8, kind="glm4", gpus="0", beside="fp8-glm4", gap=FP8_LLAMA_GAP),
    "latent-fp8": LayoutOfTwo(FP8, kind="deepseek_v3", gpus="0", beside="latent-fp8", gap=FP8_LATENT_GAP),
    "delta-fp8": LayoutOfTwo(FP8, kind=STATEFUL, gpus="0", beside="delta-fp8", gap=FP8_STATES_GAP),
    "dense-delta-fp8": LayoutOfTwo(FP8, kind=SEEING, gpus="0", beside="dense-delta-fp8", gap=FP8_DENSE_STATES_GAP),
    "experts": LayoutOfTwo(gpus="0", kind=EXPERTS),
    "experts-ep2": LayoutOfTwo(EP2, {"use_distributed_optimizer": True}, EXPERTS),
    "experts-chosen": LayoutOfTwo(gpus="0", kind=EXPERTS, algorithm=CHOSEN, beside="experts-chosen"),
    "experts-chosen-ep2": LayoutOfTwo(EP2, kind=EXPERTS, algorithm=CHOSEN, beside="experts-chosen"),
    "glm4-experts-chosen": LayoutOfTwo(gpus="0", kind="glm4_moe", algorithm=CHOSEN, beside="glm4-experts-chosen"),
    "glm4-experts": LayoutOfTwo(gpus="0", kind="glm4_moe"),
    "glm4-experts-ep2": LayoutOfTwo(EP2, {"use_distributed_optimizer": True}, "glm4_moe"),
    "latent": LayoutOfTwo(gpus="1", kind="deepseek_v3"),
    "latent-ep2": LayoutOfTwo(EP2, {"use_distributed_optimizer": True}, "deepseek_v3"),
    "delta": LayoutOfTwo(gpus="0", kind=STATEFUL),
    "delta-ep2": LayoutOfTwo(EP2, {"use_distributed_optimizer": True}, STATEFUL),
    "dense-delta": LayoutOfTwo(gpus="1", kind=SEEING),
    "sinks": LayoutOfTwo(gpus="1", kind=SINKS),
    "sinks-ep2": LayoutOfTwo(EP2, {"use_distributed_optimizer": True}, SINKS),
    "experts-tp2": LayoutOfTwo({**EP2, **CUT}, kind=EXPERTS),
    "experts-cut": LayoutOfTwo({**TWO_TRAINERS, **CUT, "expert_tensor_parallel": 2}, kind=EXPERTS),
    "latent-tp2": LayoutOfTwo({**EP2, **CUT}, kind="deepseek_v3"),
    "delta-tp2": LayoutOfTwo({**EP2, **CUT}, kind=STATEFUL),
    "dense-delta-tp2": LayoutOfTwo({**TWO_TRAINERS, **CUT}, kind=SEEING),
    "dp-attention": LayoutOfTwo({**TWO_TRAINERS, **BY_SAMPLES}),
    "experts-dp-attention": LayoutOfTwo({**EP2, **BY_SAMPLES}, kind=EXPERTS),
    "latent-dp-attention": LayoutOfTwo({**EP2, **BY_SAMPLES}, kind="deepseek_v3"),
    "sinks-tp2": LayoutOfTwo({**EP2, **CUT}, kind=SINKS),
}
REFERENCE = {  # of a model
    **{DENSE: "alone", EXPERTS: "experts", "glm4_moe": "glm4-experts", "deepseek_v3": "latent"},
    **{STATEFUL: "delta", SEEING: "dense-delta", SINKS: "sinks"},
}


def run_file(folder: Path, layout: LayoutOfTwo, device: str) -> Path:
    """A run of NUM_STEPS steps in a folder of its own, with a model that is the same everywhere."""
    placement = {
        **{"device": device, "check_sync": 1, "start_timeout_s": 350, "engine_max_total_tokens": 16384},
        **({"engine_memory_fraction": 0.25} if device == "cuda" else {}),
        **layout.placement,
    }
    path = write_run(
        folder,
        layout.kind,
        placement=placement,
        train={"lr": 1e-4, **layout.train},
        algorithm=layout.algorithm,
        rollout={"num_rollout": NUM_STEPS, "max_response_tokens": 32},
        logging={"tensorboard": False},
        checkpoint={"interval": 0, "save_hf": "off"},
    )
    tiny_model(layout.kind, folder / "model", **SIZES[layout.kind])
    if layout.placement is DRAFTS:
        tiny_model(layout.kind, folder / DRAFT, **{**SIZES[layout.kind], "num_hidden_layers": 2})
    return path


class Run:
    """One of them, under way."""

    def __init__(self, name: str, folder: Path, device: str) -> None:
        self.name, self.layout, self.device = name, LAYOUTS[name], device
        self.folder, self.run_dir = folder / name, folder / name / "out"
        self.file = run_file(self.folder, self.layout, device)
        self.log = self.folder / "log"
        command = [sys.executable, "-m", "launchers", "run", str(self.file), "--run-dir", str(self.run_dir)]
        self.began = time.time()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, env=environment(self.layout, device), start_new_session=True, cwd=ROOT
            )
        self._killed = not self.layout.killed

    def running(self) -> bool:
        """Whether it still goes on; kills its engine when it is time."""
        if not self._killed and self.events("step"):
            os.kill(self._engine_pid(), signal.SIGKILL)
            self._killed = True
        if self.process.poll() is None and time.time() - self.began > DEADLINE_S[self.device]:
            os.killpg(self.process.pid, signal.SIGINT)
            self.process.wait(60)
        return self.process.poll() is None

    def events(self, kind: str) -> list[dict[str, Any]]:
        """Progress events of a kind."""
        path = self.run_dir / "progress.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [event for event in map(json.loads, lines) if event["event"] == kind]

    def result(self) -> dict[str, Any]:
        """What came of it."""
        steps = [event["metrics"] for event in self.events("step")]
        begin = next(iter(self.events("begin")), None)
        trainers = [path.read_text() for path in self.run_dir.glob("attempts/1/trainer-*.log")]
        return {
            "layout": self.name,
            "rc": self.process.returncode,
            "start_s": round(begin["time"] - self.began, 1) if begin else None,
            "row_graphs": any("are CUDA graphs" in text for text in trainers),
            "warnings": [line for text in trainers for line in text.splitlines() if "state dict differs" in line],
            "losses": [step["train/loss"] for step in steps],
            "logprob_gap": [step["train/train_rollout_logprob_abs_diff"] for step in steps],
            "sync_s": [step["perf/update_weights_time"] for step in steps],
            "rollout_s": [step["perf/rollout_time"] for step in steps],
            "train_s": [step["perf/train_time"] for step in steps],
        }

    def told(self) -> str:
        """The ends of its logs."""
        paths = [
            self.log,
            *sorted(self.run_dir.glob("attempts/1/*.log")),
            *self.run_dir.glob("attempts/1/failure.json"),
            *sorted(self.folder.glob("*.replay.log")),
        ]
        return ends_of(paths)

    def _engine_pid(self) -> int:
        text = (self.run_dir / "attempts/1/agent-0.log").read_text()
        return int(next(line for line in text.splitlines() if "engine=" in line).partition("pid=")[2].split()[0])


def options_parser(description: str, names: Sequence[str], of: str) -> argparse.ArgumentParser:
    """What a benchmark asks that makes runs at the same time.

    Args:
        names: of the runs. of: what they are of, as "cases".
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--at-once", type=int, default=len(names), help=f"{of} at the same time")
    parser.add_argument("--only", nargs="*", default=list(names), choices=list(names))
    parser.add_argument("--folder", type=Path, help="where the runs go; left out: a temporary folder")
    return parser


def ends_of(paths: Sequence[Path]) -> str:
    """The last lines of each of these files."""
    return "\n".join(f"--- {p}\n" + "\n".join(p.read_text(errors="replace").splitlines()[-25:]) for p in paths)


def environment(layout: LayoutOfTwo, device: str) -> dict[str, str]:
    """The caller's, with this layout's GPUs."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path, **({"CUDA_VISIBLE_DEVICES": layout.gpus} if device == "cuda" else {})}


def run_all(names: list[str], folder: Path, device: str, at_once: int) -> dict[str, Run]:
    """Run the layouts, a few at a time."""
    waiting, started = list(names), {}
    running: list[Run] = []
    while waiting or running:
        while waiting and len(running) < at_once:
            name = waiting.pop(0)
            started[name] = Run(name, folder, device)
            running.append(started[name])
        running = [run for run in running if run.running()]
        time.sleep(0.2)
    return started


def replay(run: Run, samples: Path, variant: str = AS_RUN) -> Steps | None:
    """What this layout's trainer ranks make of the samples of another run, as they ran or as a variant of that."""
    launcher = [sys.executable, *TORCHRUN, "--standalone", "--nproc-per-node", str(run.layout.trainer_ranks)]
    return replay_file(variant_of(run.file, variant), samples, launcher, environment(run.layout, run.device))


def replay_file(file: Path, samples: Path, launcher: Sequence[str], env: Mapping[str, str]) -> Steps | None:
    """What ranks that `launcher` starts make of a run's samples; None if they failed, FILE.replay.log says why."""
    out = file.with_suffix(".replay.json")
    command = [*launcher, str(ROOT / "bench" / "replay.py"), str(file), str(samples), str(out)]
    with file.with_suffix(".replay.log").open("wb") as log:
        subprocess.run(command, stdout=log, stderr=log, env={**env, **OF_REPLAYS}, cwd=ROOT, timeout=200)
    return json.loads(out.read_text()) if out.exists() else None


def variant_of(file: Path, variant: str) -> Path:
    """The run file, or one beside it that says what the variant says."""
    if variant == AS_RUN:
        return file
    config = yaml.safe_load(file.read_text())
    for section, changes in VARIANTS[variant].items():
        config.setdefault(section, {}).update(changes)
    changed = file.with_name(f"{file.stem}-{variant}.yaml")
    changed.write_text(yaml.safe_dump(config))
    return changed
