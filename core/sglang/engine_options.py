"""Options of SGLang that a run file sets (`placement.engine_options`): which there are, which are ours, as words.

A login node has no SGLang: it knows the options of the versions that the project pins from files beside this one, which
`bench/engine_options.py` writes. Where SGLang is installed, its own text counts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from importlib.machinery import PathFinder
from importlib.metadata import version
from pathlib import Path
from typing import Any

from core.sglang.option_fields import Option, read_options

FILES = Path(__file__).parent / "options"
PINNED = {"cpu": "0.5.21", "cuda": "0.5.16"}
"""Version by device."""

OWNED = {
    "model_path": "model.path",
    "dtype": "model.dtype",
    "device": "placement.device",
    "tp_size": "placement.engine_tensor_parallel",
    "mem_fraction_static": "placement.engine_memory_fraction",
    "max_total_tokens": "placement.engine_max_total_tokens",
    "max_running_requests": "placement.engine_max_running_requests",
    "enable_memory_saver": "placement.offload",
    "enable_deterministic_inference": "rollout.deterministic",
    "enable_return_routed_experts": "algorithm.routing_replay",
    "random_seed": "rollout.seed",
    "preferred_sampling_params": "the keys of rollout and eval",
    "host": "the site file's network",
    "port": "the site file's port_range",
    "nccl_port": "the site file's port_range",
}
"""Options that the run sets, and the keys that they are set by."""

SET_BY_US = {
    **dict.fromkeys(("load_format", "custom_weight_loader", "weight_version", "moe_runner_backend"), "weights"),
    "enable_draft_weights_cpu_backup": "weights",
    **dict.fromkeys(("tokenizer_path", "tokenizer_mode", "skip_tokenizer_init"), "tokens, in and out"),
    **dict.fromkeys(("api_key", "admin_api_key", "ssl_keyfile", "ssl_certfile"), "who may talk to an engine"),
    **dict.fromkeys(("dist_init_addr", "nnodes", "node_rank", "pp_size"), "an engine as one server"),
    **dict.fromkeys(("base_gpu_id", "gpu_id_step"), "an engine's GPUs"),
    "tokenizer_worker_num": "the port that is held for an engine",
    "max_queued_requests": "samples that wait for their turn",
    **dict.fromkeys(("disaggregation_mode", "grpc_mode", "use_ray", "encoder_only", "is_embedding"), "a plain server"),
    "prefill_only_disable_kv_cache": "a plain server",
}
"""Options that nobody else may set, and what depends on them."""

QUANTISING = ("quantization", "torchao_config", "modelopt_quant", "quantize_and_serve", "rl_quant_profile")
"""Options by which SGLang makes other weights of those that it loads at its start, which no sync fits afterwards.

By `quantization: fp8`, say, it puts a transposed tensor of eight bits and a scale in each weight's place
(`process_weights_after_loading` in SGLang 0.5.21), and a sync calls the loader of what is gone.
"""


def known_options(device: str) -> tuple[str, Mapping[str, Option]]:
    """What offers the options, for messages, and the options by name.

    Args:
        device: "cpu", "cuda", or "auto", where only the machine that the run gets will tell.
    """
    spec = PathFinder.find_spec("sglang")
    if spec is not None and spec.submodule_search_locations:
        return f"SGLang {version('sglang')}", read_options(Path(next(iter(spec.submodule_search_locations))))
    pinned = sorted({PINNED[device]} if device in PINNED else PINNED.values())
    options: dict[str, Option] = {}
    for pin in pinned:
        for name, option in pinned_options(pin).items():
            options[name] = option.or_as(options.get(name, option))
    return f"SGLang {' or '.join(pinned)}", options


def pinned_options(pinned: str) -> dict[str, Option]:
    """The options of a version that the project pins."""
    kept = json.loads((FILES / f"{pinned}.json").read_text(encoding="utf-8"))
    return {name: Option.parse(text) for name, text in kept.items()}


def words(options: Mapping[str, Any], known: Mapping[str, Option]) -> Iterator[str]:
    """The words of a command line. null, and false of a mere switch: no word at all, so SGLang's own default."""
    for name, value in options.items():
        option = known.get(name, Option("text"))
        flag = option.flag or f"--{name.replace('_', '-')}"
        if value is None or (option.kind == "switch" and value is False):
            continue
        if isinstance(value, bool):
            yield flag if value else flag.replace("--", "--no-", 1)
        elif option.kind == "json":
            yield from (flag, value if isinstance(value, str) else json.dumps(value))
        else:
            yield from (flag, *map(str, value if isinstance(value, list) else [value]))
