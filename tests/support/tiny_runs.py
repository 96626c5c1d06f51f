"""Whole runs on a tiny random model: real trainers, a real engine, everything but size as in production."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import yaml

from tests.support.tiny_models import EOS_TOKEN_ID, VOCAB_SIZE, tiny_model

EBBTIDE = str(Path(sys.executable).parent / "ebbtide")
ROOT = Path(__file__).parents[2]
CHAT_TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
TOKENIZER_TEXT = Path(__file__).with_name("tokenizer_text.txt")  # another one changes the losses of all tests
REWARD = '''
def reward(sample):
    """Depends on every character of the response, so that losses show every token."""
    return (sum(map(ord, sample.response_text)) % 101) / 100
'''


def write_tokenizer(directory: Path) -> None:
    """A byte-level BPE tokenizer of the tiny models' vocabulary, trained on a text that stays."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<s>", "</s>"]
    bpe = ByteLevelBPETokenizer()
    bpe.train(
        [str(TOKENIZER_TEXT)], vocab_size=VOCAB_SIZE, min_frequency=1, special_tokens=special, show_progress=False
    )
    assert bpe.token_to_id("</s>") == EOS_TOKEN_ID
    fast = PreTrainedTokenizerFast(
        tokenizer_object=bpe._tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        chat_template=CHAT_TEMPLATE,
    )
    fast.save_pretrained(directory)


def write_run(folder: Path, kind: str = "llama-tied", **sections: Mapping[str, Any]) -> Path:
    """A run file with everything it needs beside it; `sections` change single keys.

    Steps of 4 prompts x 4 samples, 8 response tokens, 2 optimiser steps; a checkpoint after every step, not by time.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model = tiny_model(kind, folder / "model")
    write_tokenizer(model)
    rows = [{"prompt": f"say {word} {i}", "label": str(i)} for i, word in enumerate(["one", "two", "three"] * 4)]
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "reward.py").write_text(REWARD)
    run: dict[str, Any] = {
        "name": "tiny",
        "model": {"path": "model"},
        "data": {"path": "data.jsonl", "max_prompt_tokens": 64},
        "rollout": {
            "num_rollout": 4,
            "rollout_batch_size": 4,
            "n_samples_per_prompt": 4,
            "max_response_tokens": 8,
        },
        "reward": {"type": "python", "path": "reward.py:reward"},
        "train": {"global_batch_size": 8, "num_steps_per_rollout": 2, "lr": 1e-3, "max_tokens_per_micro_batch": 256},
        "placement": {"start_timeout_s": 180, "collective_timeout_s": 180, "engine_max_running_requests": 16},
        "checkpoint": {"interval": 1, "every": None},
    }
    for name, changes in sections.items():
        run[name] = {**run.get(name, {}), **changes}
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(run))
    return path


def start_ebbtide(*arguments: str, log: Path, python_path: str | Path = "") -> subprocess.Popen[bytes]:
    """Start the command in a session of its own."""
    env = {**os.environ, "PYTHONPATH": str(python_path), "COLUMNS": "200"}
    with log.open("ab") as file:
        return subprocess.Popen([EBBTIDE, *arguments], stdout=file, stderr=file, env=env, start_new_session=True)


def ebbtide(*arguments: str, timeout_s: float = 400) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    env = {**os.environ, "PYTHONPATH": "", "COLUMNS": "200"}
    return subprocess.run([EBBTIDE, *arguments], capture_output=True, text=True, timeout=timeout_s, env=env)


def events(run_dir: Path, kind: str) -> list[dict[str, Any]]:
    """The progress events of one kind, in order."""
    path = run_dir / "progress.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [event for event in map(json.loads, lines) if event["event"] == kind]


def entered(event: dict[str, Any]) -> str:
    """The phase that an event tells of, such as "update step=1"."""
    return f"{event['phase']} step={event['step']}"


def times_entered(run_dir: Path, phase: str) -> int:
    """How often the run has entered a phase."""
    return sum(entered(event) == phase for event in events(run_dir, "phase"))


def losses(run_dir: Path) -> dict[int, float]:
    """Loss of every step; a step that was repeated counts with its last value."""
    return {event["step"]: event["metrics"]["train/loss"] for event in events(run_dir, "step")}


def descendants(pids: Sequence[int]) -> list[psutil.Process]:
    """These processes and all below them."""
    found = []
    for pid in pids:
        process = psutil.Process(pid)
        found += [process, *process.children(recursive=True)]
    return found


def survivors(processes: Sequence[psutil.Process]) -> list[psutil.Process]:
    """Those that still run (a zombie does not)."""
    return [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
