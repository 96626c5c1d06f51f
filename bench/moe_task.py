"""The run of bench/moe_run.py: a model with experts and random weights, prompts of one length, answers of many.

Words are tokens: the tokenizer knows one word for each number of the vocabulary. Random weights never stop, so a
function of its own (`rollout.generate`) gives each answer a length, which depends on its seed alone.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bench.model_dir import known_shape
from bench.random_weights import write_random_model
from modelcfg import ModelShape

LENGTHS = '''"""Answers of many lengths."""

import random
from dataclasses import replace

from ebbtide import Response


async def generate(task, engine, least=1):
    """An answer of `least` to the longest number of tokens, by its seed."""
    sampling = task.sampling
    length = random.Random(sampling.seed).randint(least, sampling.max_response_tokens)
    return Response.of(await engine.generate(task.prompt_tokens, replace(sampling, max_response_tokens=length)))
'''
MANY_STEPS = 1000
SPECIAL = ("<pad>", "<s>", "</s>")  # their numbers are those of config.json


@dataclass(frozen=True)
class Task:
    """Sizes of the run. `layers`: None: all of them. `answer`: least and most tokens."""

    model: str = "qwen3-30b-a3b"
    layers: int | None = None
    gpus: int = 8
    engine_gpus: int = 4
    groups: int = 64
    group_size: int = 8
    prompt: int = 512
    answer: tuple[int, int] = (1024, 4096)
    steps: int = 3
    row_tokens: int = 16384
    engine_fraction: float = 0.6

    @property
    def shape(self) -> ModelShape:
        """The model's, cut to its layers."""
        return known_shape(self.model if self.layers is None else f"{self.model}:{self.layers}")

    @property
    def samples(self) -> int:
        """Samples of a step."""
        return self.groups * self.group_size


def run_values(task: Task, recompute: bool = True) -> dict[str, Any]:
    """The run file. It has more steps than are measured: the run is stopped, for nothing is to be saved at its end."""
    engines = task.gpus // task.engine_gpus
    return {
        "name": "moe-run",
        "model": {"path": "model", "dtype": "bfloat16"},
        "data": {"path": "prompts.jsonl", "apply_chat_template": False, "max_prompt_tokens": task.prompt},
        "rollout": {
            "num_rollout": MANY_STEPS,
            "rollout_batch_size": task.groups,
            "n_samples_per_prompt": task.group_size,
            "max_response_tokens": task.answer[1],
            "generate": "lengths.py:generate",
            "generate_options": {"least": task.answer[0]},
            "generate_workers": 4,
            "generate_timeout_s": 1800,
        },
        "reward": {"type": "random"},
        "train": {
            "global_batch_size": task.samples,
            "max_tokens_per_micro_batch": task.row_tokens,
            "use_distributed_optimizer": task.gpus > 1,
            **({"recompute": "full"} if recompute else {}),
        },
        "placement": {
            "device": "cuda",
            "trainers_per_node": task.gpus,
            "expert_parallel": task.gpus,
            "engines_per_node": engines,
            "engine_tensor_parallel": task.engine_gpus,
            "engine_memory_fraction": task.engine_fraction,
            "engine_max_running_requests": -(-task.samples // engines),
            "start_timeout_s": 1200,
        },
        "checkpoint": {"every": None, "save_hf": "off"},
        "logging": {"sinks": [], "show_samples": 0},
    }


def write_inputs(task: Task, folder: Path, values: dict[str, Any], **weights: Any) -> Path:
    """Write the run file and all that it names."""
    folder.mkdir(parents=True, exist_ok=True)
    write_random_model(task.shape, folder / "model", **weights)
    write_words(task.shape.vocab_size, folder / "model")
    rng = random.Random(0)
    rows = [{"prompt": _words(rng, task), "label": "1"} for _ in range(task.groups)]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "lengths.py").write_text(LENGTHS)
    file = folder / "run.yaml"
    file.write_text(yaml.safe_dump(values))
    return file


def write_words(vocab_size: int, directory: Path) -> None:
    """A tokenizer that splits at spaces: w17 is token 17; the first three are special."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: number for number, word in enumerate(SPECIAL)}
    vocabulary |= {f"w{number}": number for number in range(len(SPECIAL), vocab_size)}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token=SPECIAL[0]))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    names = dict(zip(("pad_token", "bos_token", "eos_token"), SPECIAL, strict=True))
    PreTrainedTokenizerFast(tokenizer_object=words, **names).save_pretrained(directory)


def _words(rng: random.Random, task: Task) -> str:
    return " ".join(f"w{rng.randrange(len(SPECIAL), task.shape.vocab_size)}" for _ in range(task.prompt))
