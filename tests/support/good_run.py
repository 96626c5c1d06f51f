"""A run file without mistakes, and the files it names, for tests to break."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path

from core.pretrained.header import BITS
from modelcfg import UnsupportedModelError, from_hf, load
from modelcfg.shape import ModelShape
from modelcfg.tensors import hf_tensors

RUN_FILE = """\
name: test
model:
  path: model
data:
  path: rows.jsonl
  max_prompt_tokens: 64
rollout:
  num_rollout: 4
  rollout_batch_size: 2
  n_samples_per_prompt: 4
  max_response_tokens: 32
  temperature: 1.0
reward:
  type: exact
algorithm:
  eps_clip: 0.2
train:
  global_batch_size: 8
  lr: 1e-6
placement:
  device: cpu
eval:
  sets:
    held_out:
      path: rows.jsonl
      max_prompt_tokens: 64
"""
SHAPE = ModelShape(
    name="tiny",
    architecture="qwen2",
    num_layers=4,
    hidden_size=48,
    ffn_hidden_size=96,
    num_attention_heads=6,
    num_query_groups=2,
    head_dim=8,
    vocab_size=512,
    norm_eps=1e-6,
    rope_theta=10000.0,
    tied_embeddings=True,
    qkv_bias=True,
    qk_norm=False,
    max_position_embeddings=256,
)

EXPERTS = {  # in config.json, beside what SHAPE says
    "architectures": ["Qwen3MoeForCausalLM"],
    "num_experts": 6,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 30,
    "norm_topk_prob": True,
    "tie_word_embeddings": False,
}

WITH_STATES = {  # likewise
    **EXPERTS,
    "architectures": ["Qwen3NextForCausalLM"],
    "shared_expert_intermediate_size": 24,
    "linear_num_key_heads": 3,
    "linear_num_value_heads": 6,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}

WITH_SINKS = {  # likewise
    "architectures": ["GptOssForCausalLM"],
    "num_local_experts": 6,
    "num_experts_per_tok": 2,
    "sliding_window": 5,
    "tie_word_embeddings": False,
    "rope_scaling": {"rope_type": "default"},
}


def write_run(folder: Path, text: str = RUN_FILE) -> Path:
    """Writes the run file and what it names into `folder`."""
    write_model(folder / "model", SHAPE)
    write_model(folder / "other_theta", load("smollm2-135m"), rope_theta=10000.0)
    write_model(folder / "deeper", SHAPE.model_copy(update={"num_layers": 5}))
    write_model(folder / "experts", SHAPE, **EXPERTS)
    write_model(folder / "states", SHAPE, **WITH_STATES)
    write_model(folder / "sinks", SHAPE, **WITH_SINKS)
    write_model(folder / "gpt2", SHAPE, architectures=["GPT2LMHeadModel"])
    write_model(folder / "unreadable", SHAPE)
    (folder / "unreadable" / "config.json").write_text("[]")
    write_model(folder / "bare", SHAPE)
    (folder / "bare" / "model.safetensors").unlink()
    (folder / "bare" / "tokenizer.json").unlink()
    rows = [{"prompt": f"{number} + 1 =", "label": str(number + 1)} for number in range(3)]
    (folder / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (folder / "mixed.jsonl").write_text('{"prompt": "a", "label": "b"}\n{"question": "c", "answer": "d"}\n')
    (folder / "numbers.jsonl").write_text('{"prompt": "a", "label": "b"}\n{"prompt": 7, "label": "d"}\n')
    (folder / "empty.jsonl").write_text("")
    (folder / "labels.jsonl").write_text('{"prompt": "a", "label": "b"}\n' + '{"prompt": "a", "label": null}\n' * 3)
    (folder / "broken.jsonl").write_text('{"prompt": "a", "label": "b"}\n{"prompt": \n')
    (folder / "score.py").write_text("def score(sample):\n    return 1.0\n")
    (folder / "unfinished.py").write_text("def score(sample:\n")
    (folder / "raises.py").write_text("def rows():\n    raise KeyError('no such table')\n")
    (folder / "empty").mkdir(exist_ok=True)
    (folder / "run.yaml").write_text(text)
    return folder / "run.yaml"


def write_model(folder: Path, shape: ModelShape, **changes: object) -> None:
    """What a run reads of a model before it starts: config.json, headers, and the names of the other files."""
    folder.mkdir(exist_ok=True)
    config = {
        "architectures": [f"{shape.architecture.capitalize()}ForCausalLM"],
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.ffn_hidden_size,
        "max_position_embeddings": shape.max_position_embeddings,
        "num_attention_heads": shape.num_attention_heads,
        "num_hidden_layers": shape.num_layers,
        "num_key_value_heads": shape.num_query_groups,
        "head_dim": shape.head_dim,
        "rms_norm_eps": shape.norm_eps,
        "rope_theta": shape.rope_theta,
        "tie_word_embeddings": shape.tied_embeddings,
        "vocab_size": shape.vocab_size,
    }
    (folder / "config.json").write_text(json.dumps(config | changes))
    try:
        described = from_hf(config | changes)
    except UnsupportedModelError:
        described = shape
    write_weights(folder / "model.safetensors", hf_tensors(described))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}")


def write_weights(file: Path, shapes: Mapping[str, Sequence[int]], dtype: str = "BF16") -> None:
    """A file of zeros, that takes no room on the disk; its header is written as the format says."""
    header, end = {}, 0
    for name, shape in shapes.items():
        start, end = end, end + prod(shape) * BITS[dtype] // 8
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text)
    os.truncate(file, 8 + len(text) + end)
