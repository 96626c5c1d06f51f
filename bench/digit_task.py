"""The toy task of bench/algorithms.py: a prompt is one digit, and the response is right if it begins with it.

A tiny Llama from random weights, with a vocabulary of 16: by chance a sixteenth of the responses are right.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

VOCABULARY = ("<pad>", "<s>", "</s>", *map(str, range(10)), "a", "b", "c")
REWARD = '''
def begins_with_the_digit(sample):
    """1 for a response whose first character is the digit asked for."""
    return float(sample.response_text[:1] == sample.label)
'''


def write_task(folder: Path, seed: int, kind: str = "Llama", **sizes: int) -> Path:
    """Write model, tokenizer, rows and reward.

    Args:
        seed: of the random weights.
        kind: the model's, as transformers' classes are called.
        sizes: its, where they are others.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _write_model(folder / "model", seed, kind, sizes)
    _write_tokenizer(folder / "model")
    rows = [{"prompt": str(digit), "label": str(digit)} for digit in range(10)] * 2  # dynamic sampling draws 20
    (folder / "digits.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "reward.py").write_text(REWARD)
    return folder


def run_file(folder: Path) -> dict[str, Any]:
    """What all run files of the task have in common: a run on a CPU that is evaluated at both ends."""
    digits = {"path": str(folder / "digits.jsonl"), "apply_chat_template": False, "max_prompt_tokens": 8}
    return {
        "model": {"path": str(folder / "model")},
        "data": digits,
        "reward": {"path": str(folder / "reward.py:begins_with_the_digit"), "type": "python"},
        "placement": {"device": "cpu", "start_timeout_s": 300},
        "eval": {"sets": {"digits": {**digits, "size": 10}}},
        "checkpoint": {"save_hf": False},
        "logging": {"sinks": []},
    }


def _write_model(directory: Path, seed: int, kind: str, sizes: dict[str, int]) -> None:
    import torch
    import transformers

    torch.manual_seed(seed)
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=len(VOCABULARY),
        **{"hidden_size": 64, "intermediate_size": 128, **sizes},
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        bos_token_id=VOCABULARY.index("<s>"),
        eos_token_id=VOCABULARY.index("</s>"),
        dtype="float32",
    )
    getattr(transformers, f"{kind}ForCausalLM")(config).save_pretrained(directory)


def _write_tokenizer(directory: Path) -> None:
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({word: place for place, word in enumerate(VOCABULARY)}, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    special = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    PreTrainedTokenizerFast(tokenizer_object=words, **special).save_pretrained(directory)
