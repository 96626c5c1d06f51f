"""The command line and the environment of one SGLang server. Pure: nothing is started here."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from core.pretrained.packing import Packing
from core.pretrained.quantised import KEYS
from core.processes.device import thread_environment
from core.sglang.attention_groups import attention_groups
from core.sglang.back_ends import TRITON, BackEnds
from core.sglang.engine_options import known_options, words
from core.sglang.speculation import algorithm, settings

ENGINE_SITE = Path(__file__).parent / "engine_site"  # for every engine: sitecustomize, the server's entry
CPU_SHIM = Path(__file__).parent / "cpu_shim"  # for CPU engines: stand-ins, seeds, fast start
WEIGHT_LOADER = "ebbtide_weight_replay.load"  # of ENGINE_SITE: takes buckets faster than SGLang's own way
HIDDEN = "megatron"  # SGLang imports it where it finds it
CPU_TOTAL_TOKENS = 16384
OVERRIDES = "json_model_override_args"  # SGLang's option: what of config.json is to be otherwise
MOST_BLOCKS = 32  # that share a sample's keys with triton, where few are left: they fill a GPU by them (SGLang: 8)
MAX_GRAPH_BATCH = 256  # CUDA graphs beyond this cost more memory and start-up time than they give back

# what must not reach an engine: settings of the trainer's process group, and of a parent engine
TRAINER_VARIABLES = frozenset(
    {
        "RANK",
        "LOCAL_RANK",
        "WORLD_SIZE",
        "LOCAL_WORLD_SIZE",
        "GROUP_RANK",
        "ROLE_RANK",
        "ROLE_WORLD_SIZE",
        "MASTER_ADDR",
        "MASTER_PORT",
        "PYTORCH_CUDA_ALLOC_CONF",
        "CUDA_DEVICE_MAX_CONNECTIONS",
        "DISABLE_OPENAPI_DOC",
        "SGLANG_RETURN_ORIGINAL_LOGPROB",
    }
)
TRAINER_PREFIXES = ("TORCHELASTIC_", "ACCELERATE_")


@dataclass(frozen=True)
class OverNodes:
    """One of the programs of an engine over several nodes. All are the same but for this; the first has the server.

    Attributes:
        count, rank: of the nodes, and of this one among them.
        meeting: host:port at which torch of the first one serves the store where all ranks of the engine meet.
    """

    count: int
    rank: int
    meeting: str


@dataclass(frozen=True)
class EngineSpec:
    """One server. On GPUs it takes the first of CUDA_VISIBLE_DEVICES: `tensor_parallel`, or a node's share of these.

    Attributes:
        device: "cpu" needs SGLang 0.5.21; "cuda" was tried with 0.5.16.
        dtype: "float32" or "bfloat16".
        port: the server binds it on `host`.
        memory_fraction: share of GPU memory for weights and KV cache.
        max_total_tokens: KV cache size; None: what the memory holds (CPU: 16384).
        context_length: longest sequence; None: the model's.
        api_key: asked of every request except /health; travels in the environment, not on the command line.
        deterministic: on a GPU: samples and log-probs independent of the rest of the batch, at a cost in speed (a CPU
            engine is always so, see `EngineClient.generate_group`).
        num_threads: CPU threads of each of the engine's processes.
        has_experts: whether the model has.
        has_windows: whether some of its layers see a window of tokens.
        back_ends: of an engine on a GPU: what it computes attention and samples with.
        config: keys that SGLang asks of `config.json`, which may not have them.
        quantised: whether its files hold quantised weights. The engine then computes with whole ones, which it does not
            read from there: it has none until a sync.
        packing: what it has in few bits; None: nothing. It then has no weights until a sync, which brings them so.
        returns_routing: whether requests may ask for the experts that were taken.
        over_nodes: None: all of the engine is on this node.
        options: further ones of SGLang by name; they replace those of the same name that are set here.
    """

    name: str
    model_dir: Path
    device: Literal["cpu", "cuda"] | str
    dtype: str
    host: str
    port: int
    tensor_parallel: int = 1
    memory_fraction: float = 0.5
    max_total_tokens: int | None = None
    max_running_requests: int = 64
    context_length: int | None = None
    random_seed: int = 0
    api_key: str | None = None
    deterministic: bool = False
    num_threads: int = 1
    has_experts: bool = False
    has_windows: bool = False
    back_ends: BackEnds = field(default_factory=BackEnds)
    quantised: bool = False
    packing: Packing | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    returns_routing: bool = False
    over_nodes: OverNodes | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


def command(spec: EngineSpec, python: str = sys.executable) -> list[str]:
    """The server's command line, to be run with `environment(spec, ...)`."""
    options = {**_options(spec), **spec.options}
    told = {**spec.config, **_mapping(options.get(OVERRIDES))}
    if spec.quantised or spec.packing:  # its files are not read, and config.json is as if they held what it is sent
        settings = spec.packing.engine_settings() if spec.packing else None
        options["load_format"], told = "dummy", {**told, **dict.fromkeys(KEYS), KEYS[0]: settings}
    if told:
        options[OVERRIDES] = json.dumps(told)
    known = known_options(spec.device)[1] if spec.options or spec.packing else {}
    return [python, "-m", "ebbtide_engine_server", *words(options, known)]


def _options(spec: EngineSpec) -> dict[str, Any]:
    """What we set, by SGLang's names; None: left to SGLang."""
    return {
        "model_path": spec.model_dir,
        "host": spec.host,
        "port": spec.port,
        "device": spec.device,
        "dtype": spec.dtype,
        "tp_size": spec.tensor_parallel,
        "max_running_requests": spec.max_running_requests,
        "random_seed": spec.random_seed,
        "sampling_backend": spec.back_ends.sampling,
        "grammar_backend": "none",
        "custom_weight_loader": WEIGHT_LOADER,
        "context_length": spec.context_length,
        "skip_tokenizer_init": True,
        "enable_return_routed_experts": True if spec.returns_routing else None,
        "sleep_on_idle": True,  # an idle scheduler would spin while the trainer works
        **_over_nodes(spec.over_nodes),
        **settings(spec.options),
        **(_cpu_options(spec) if spec.device == "cpu" else _cuda_options(spec)),
    }


def _over_nodes(place: OverNodes | None) -> dict[str, Any]:
    if place is None:
        return {}
    return {"nnodes": place.count, "node_rank": place.rank, "dist_init_addr": place.meeting}


def _mapping(value: Any) -> Mapping[str, Any]:
    """A run file's option that is JSON: as text, as a mapping, or left out."""
    return value if isinstance(value, Mapping) else json.loads(value or "{}")


def _cpu_options(spec: EngineSpec) -> dict[str, Any]:
    return {
        "attention_backend": "torch_native",  # the CPU default needs SGLang's own kernels
        "mem_fraction_static": 0.8,  # of free host memory, only a bound: the KV cache is sized by the next
        "max_total_tokens": spec.max_total_tokens or CPU_TOTAL_TOKENS,
        "disable_cuda_graph": True,
    }


def _cuda_options(spec: EngineSpec) -> dict[str, Any]:
    return {
        "attention_backend": spec.back_ends.attention,
        "triton_attention_num_kv_splits": MOST_BLOCKS if _shares_keys(spec) and not _many(spec) else None,
        # another, as on Blackwell, shuffles loaded weights: no update would fit
        "moe_runner_backend": "triton" if spec.has_experts else None,
        **(spec.packing.way.options if spec.packing else {}),  # likewise
        "mem_fraction_static": spec.memory_fraction,
        "max_total_tokens": spec.max_total_tokens,
        "cuda_graph_max_bs_decode": min(_running_of_a_group(spec), MAX_GRAPH_BATCH),
        "enable_memory_saver": True,
        "skip_server_warmup": True,
        "disable_prefill_cuda_graph": True,  # took half of the start, to speed up what is a few steps of each rollout
        "enable_deterministic_inference": True if spec.deterministic else None,
    }


def _shares_keys(spec: EngineSpec) -> bool:
    """Whether `ebbtide_triton_blocks` shares out a sample's keys; deterministic engines have a rule of their own."""
    return spec.back_ends.attention == TRITON and not spec.deterministic


def _many(spec: EngineSpec) -> bool:
    """Whether more samples may be under way than graphs have: they fill a GPU, and each would take the room."""
    return _running_of_a_group(spec) > MAX_GRAPH_BATCH


def _running_of_a_group(spec: EngineSpec) -> int:
    """Requests that ranks compute together; SGLang gives each group its share."""
    return max(1, spec.max_running_requests // attention_groups(spec.options))


def environment(spec: EngineSpec, base: Mapping[str, str]) -> dict[str, str]:
    """The server's whole environment.

    Args:
        base: what to start from, usually os.environ; the trainer's own variables are left out. Its PYTHONPATH stays,
            behind ours; Megatron is hidden from the engine (it would import it, at 25 s of start-up time).
    """
    kept = {key: value for key, value in base.items() if not _is_trainers(key)}
    site = [str(ENGINE_SITE), *([str(CPU_SHIM)] if spec.device == "cpu" else [])]
    inherited = [entry for entry in kept.get("PYTHONPATH", "").split(":") if entry and entry not in site]
    return kept | {
        "PYTHONPATH": ":".join([*site, *inherited]),
        "PYTHONUNBUFFERED": "1",
        "PYTHONWARNINGS": "ignore:Duplicate Operation ID:UserWarning",  # 20 of them, from our asking for /openapi.json
        "EBBTIDE_DIE_WITH_PARENT": "1",
        "EBBTIDE_HIDE_MODULES": HIDDEN,
        "EBBTIDE_ENGINE_API_KEY": spec.api_key or "",
        **({"EBBTIDE_ENGINE_WEIGHTS": spec.packing.way.word} if spec.packing else {}),
        **({"EBBTIDE_ATTENTION_GROUPS": "1"} if attention_groups(spec.options) > 1 else {}),
        **({"EBBTIDE_DRAFTS": "1"} if algorithm(spec.options) else {}),
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        **({"SGLANG_HOST_IP": spec.host} if spec.over_nodes else {}),  # SGLang would ask the way to the internet
        **thread_environment(spec.num_threads, kept),
        **(_cpu_environment(spec) if spec.device == "cpu" else _cuda_environment(spec)),
    }


def _cpu_environment(spec: EngineSpec) -> dict[str, str]:
    variables = {
        "EBBTIDE_CPU_ENGINE": "1",
        "EBBTIDE_HIDE_MODULES": f"{HIDDEN},scipy,mistral_common",  # transformers and gguf would import them
        "SGLANG_USE_CPU_ENGINE": "1",
        "SGLANG_EXTERNAL_MODEL_PACKAGE": "ebbtide_engine_models",
        "TORCH_COMPILE_DISABLE": "1",  # compiling the sampler takes longer than running it
        "CUDA_VISIBLE_DEVICES": "",
    }
    if spec.tensor_parallel > 1:  # SGLang wants to be told which cores each rank may use
        variables["SGLANG_CPU_OMP_THREADS_BIND"] = "|".join(str(rank) for rank in range(spec.tensor_parallel))
    return variables


def _cuda_environment(spec: EngineSpec) -> dict[str, str]:
    """FlashInfer is off unless something names it: wherever SGLang finds it, it takes more of it, and that compiles."""
    chosen = {"attention_backend": spec.back_ends.attention, "sampling_backend": spec.back_ends.sampling}
    asked = any("flashinfer" in str(value) for value in {**chosen, **spec.options}.values())
    variables = {} if asked else {"SGLANG_IS_FLASHINFER_AVAILABLE": "false"}
    if spec.tensor_parallel > 1:  # trainer ranks need not hold alike: the plan knows, and the gate looks for strangers
        variables["SGLANG_ENABLE_TP_MEMORY_INBALANCE_CHECK"] = "false"
    if _shares_keys(spec):
        variables["EBBTIDE_TRITON_BLOCKS"] = "1"
    return variables | ({"EBBTIDE_TRITON_WINDOWS": "1"} if spec.has_windows else {})


def _is_trainers(variable: str) -> bool:
    return variable in TRAINER_VARIABLES or variable.startswith(TRAINER_PREFIXES)
