"""TRL's side of bench/peer_trl.py, run by TRL's own Python: `trl_steps.py TASK.json RESULT.json VARIANT...`

Each variant trains a fresh model. A step lasts from the end of the one before to its own end, so it includes loading
the prompts and logging. Left out of all variants: gradient checkpointing, dropout, checkpoints, a reference model.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

BEGAN = time.time()
sys.path.insert(0, str(Path(__file__).parents[1]))

import torch  # noqa: E402
from datasets import Dataset  # noqa: E402
from transformers import AutoTokenizer, TrainerCallback  # noqa: E402
from trl import GRPOConfig, GRPOTrainer  # noqa: E402

from bench.record import versions  # noqa: E402
from core.config.sections.reward import RewardConfig  # noqa: E402
from core.reward.sample import RewardInput  # noqa: E402
from core.reward.scorers import build_scorer  # noqa: E402

# On a GPU: bf16 autocast over fp32 weights; all in bf16, Adam's moments too; paged cache, which wants bf16 weights;
# vLLM in the same process, without the correction for its log-probs, which would cost another forward
VARIANTS: dict[str, dict[str, Any]] = {
    "generate": {},
    "generate-bf16": {"model_init_kwargs": {"dtype": "bfloat16"}},
    "continuous": {"model_init_kwargs": {"dtype": "bfloat16"}, "use_transformers_continuous_batching": True},
    "continuous-graphs": {
        "model_init_kwargs": {"dtype": "bfloat16"},
        "use_transformers_continuous_batching": True,
        "transformers_continuous_batching_config": {"use_cuda_graph": True, "max_memory_percent": 0.2},
    },
    "vllm": {
        "model_init_kwargs": {"dtype": "bfloat16"},
        "use_vllm": True,
        "vllm_mode": "colocate",
        "vllm_importance_sampling_correction": False,
    },
}
LIBRARIES = ("trl", "transformers", "torch", "accelerate", "datasets", "vllm")


class Watch(TrainerCallback):
    """Scores responses and notes, step by step, when it ended, when its responses were there, tokens and reward."""

    def __init__(self, reward: RewardConfig, limit_s: float) -> None:
        self.__name__ = "reward"  # TRL names its metrics after the reward function
        self._score = build_scorer(reward)
        self._limit_s = limit_s
        self.ends: list[float] = []
        self.generated: list[float] = []
        self.tokens: list[int] = []
        self.rewards: list[float] = []

    def __call__(
        self,
        prompts: list[str],
        completions: list[str],
        completion_ids: list[list[int]],
        label: list[Any],
        metadata: list[str],
        **_: Any,
    ) -> list[float]:
        """TRL's reward function."""
        self.generated.append(time.time())
        scores = [
            self._score(RewardInput(prompt, completion, wanted, json.loads(about)))
            for prompt, completion, wanted, about in zip(prompts, completions, label, metadata, strict=True)
        ]
        self.tokens.append(sum(map(len, completion_ids)))
        self.rewards.append(sum(scores) / len(scores))
        return scores

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._note()

    def on_step_end(self, _args: Any, _state: Any, control: Any, **_: Any) -> None:
        self._note()
        if self.ends[-1] - self.ends[0] > self._limit_s:
            control.should_training_stop = True

    def _note(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ends.append(time.time())

    def steps(self) -> list[dict[str, float]]:
        """One entry per step; the update is what follows the responses, scoring included."""
        noted = zip(self.ends, self.ends[1:], self.generated, self.tokens, self.rewards, strict=False)
        return [
            {"seconds": end - begin, "rollout": made - begin, "update": end - made, "tokens": tokens, "reward": reward}
            for begin, end, made, tokens, reward in noted
        ]


def settings(task: dict[str, Any], variant: str, folder: str) -> GRPOConfig:
    """TRL's configuration for the task: GRPO without KL, one optimiser step over the whole batch."""
    cuda = task["device"] == "cuda"
    length = max(len(prompt["tokens"]) for prompt in task["prompts"]) + task["max_response_tokens"]
    chosen = {"model_init_kwargs": {"dtype": "float32"}, "vllm_max_model_length": length, **VARIANTS[variant]}
    return GRPOConfig(
        output_dir=folder,
        max_steps=task["num_steps"],
        per_device_train_batch_size=task["micro_batch_size"],
        gradient_accumulation_steps=task["batch_size"] // task["micro_batch_size"],
        num_generations=task["group_size"],
        max_completion_length=task["max_response_tokens"],
        **task["sampling"],
        **task["optimiser"],
        beta=0.0,
        epsilon=task["eps_clip"][0],
        epsilon_high=task["eps_clip"][1],
        scale_rewards="group" if task["std_normalization"] else "none",
        loss_type={"token_mean": "dapo", "sample_mean": "grpo"}[task["loss_aggregation"]],
        shuffle_dataset=False,
        gradient_checkpointing=False,
        disable_dropout=True,
        use_cpu=not cuda,
        bf16=cuda,
        logging_steps=1,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        **chosen,
    )


def run(task: dict[str, Any], variant: str, began: float) -> dict[str, Any]:
    """Train by one variant; its steps, and the seconds from `began` to the first."""
    tokenizer = AutoTokenizer.from_pretrained(task["model_dir"])
    prompts = task["prompts"]
    if tokenizer([prompt["text"] for prompt in prompts])["input_ids"] != [prompt["tokens"] for prompt in prompts]:
        raise ValueError("TRL's tokenizer makes other tokens of the prompts; wanted the same: is it the same model?")
    watch = Watch(RewardConfig(**task["reward"]), task["limit_s"])
    with tempfile.TemporaryDirectory() as folder:
        trainer = GRPOTrainer(
            model=task["model_dir"],
            reward_funcs=watch,
            args=settings(task, variant, folder),
            train_dataset=Dataset.from_list(
                [{"prompt": p["text"], "label": p["label"], "metadata": json.dumps(p["metadata"])} for p in prompts]
            ),
            processing_class=tokenizer,
            callbacks=[watch],
        )
        trainer.train()
    return {"name": f"trl, {variant}", "startup_s": watch.ends[0] - began, "steps": watch.steps()}


def main() -> None:
    """Run the variants in turn; one that fails is recorded with its reason and the next one runs."""
    task = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    runs: list[dict[str, Any]] = []
    began = BEGAN
    for variant in sys.argv[3:]:
        try:
            runs.append(run(task, variant, began))
        except Exception as error:
            traceback.print_exc()
            runs.append({"name": f"trl, {variant}", "failed": f"{type(error).__name__}: {error}"[:500]})
        gc.collect()
        torch.cuda.empty_cache()
        began = time.time()
        result = {"runs": runs, "versions": versions(LIBRARIES)}
        Path(sys.argv[2]).write_text(json.dumps(result))  # after each: what was measured is kept


if __name__ == "__main__":
    main()
