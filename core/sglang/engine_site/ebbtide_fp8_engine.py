"""A plugin for SGLang (0.5.16 and 0.5.21): what an engine needs that is sent its weights in fp8, and reads none.

The entry point in ebbtide_engine_site-1.dist-info makes SGLang load this in every process. Without
EBBTIDE_ENGINE_WEIGHTS=fp8 (`core.sglang.launch`) it does nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

CACHE_FACTORS = (".k_scale", ".v_scale")  # of keys and values, as parameters of attention
NOT_IN_THE_FILES = -1.0  # what SGLang takes for a factor of 1
FILL = "sglang.srt.model_loader.loader.initialize_dummy_weights"
LOAD_LLAMA = "sglang.srt.models.llama.LlamaForCausalLM.load_weights"  # Mistral's is a subclass
QUANTISE = "sglang.kernels.ops.quantization.fp8_kernel._run_per_token_group_quant_8bit_kernel"


def register() -> None:
    """Hook into all three functions."""
    if os.environ.get("EBBTIDE_ENGINE_WEIGHTS") != "fp8":
        return
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType

    HookRegistry.register(FILL, keep_cache_factors, HookType.AFTER)
    HookRegistry.register(QUANTISE, quantise_activations, HookType.AROUND)
    HookRegistry.register(LOAD_LLAMA, keep_names_of_factors, HookType.AROUND)


def keep_cache_factors(result: Any, model: Any, *_: Any, **__: Any) -> Any:
    """Leave the factors of the KV cache out of what is filled by chance until weights come: no sync brings these, and
    attention multiplies by them.
    """
    for name, tensor in model.state_dict().items():
        if name.endswith(CACHE_FACTORS):
            tensor.fill_(NOT_IN_THE_FILES)
    return result


def keep_names_of_factors(usual: Callable[..., Any], model: Any, weights: Iterable[tuple[str, Tensor]]) -> Any:
    """Load the factors of blocks by their names, and all else as ever: SGLang's Llama looks for `weight_scale`, which
    its layers have for one factor of a whole weight, and leaves out what it does not find.

    Raises:
        KeyError: no parameter has the name.
    """
    # torch comes with it, and not every process of an engine loads weights
    from ebbtide_weight_replay import FACTORS  # type: ignore[import-not-found]

    places = dict(model.named_parameters())

    def others() -> Iterator[tuple[str, Tensor]]:
        for name, tensor in weights:
            if name.endswith(FACTORS):
                _load_factors(model.stacked_params_mapping, places, name, tensor)
            else:
                yield name, tensor

    return usual(model, others())


def _load_factors(
    fused: Iterable[tuple[str, str, str | int]], places: Mapping[str, Any], name: str, factors: Tensor
) -> None:
    """Bring the factors of a projection to those of the matrix that it is in, of which a rank may have a part."""
    for whole, part, shard in fused:
        if f"{part}." in name:
            place = places[name.replace(part, whole)]
            place.weight_loader(place, factors, shard)
            return
    places[name].weight_loader(places[name], factors)


def quantise_activations(usual: Callable[..., None], *arguments: Any, **named: Any) -> None:
    """Do by SGLang's triton kernel what its own would be compiled for by nvcc at the start of an engine, where that is
    there at all: each token's channels in groups, the largest of a group becoming the largest number in fp8.
    """
    from sglang.kernels.ops.quantization.fp8_kernel import _per_token_group_quant_8bit

    activations, numbers, factors, group, least, lowest, highest = arguments
    unusual = any(named.get(key) for key in ("scale_ue8m0", "fuse_silu_and_mul")) or named.get("masked_m") is not None
    if unusual or not factors.is_contiguous():
        usual(*arguments, **named)
        return
    grid = (activations.numel() // group,)
    limits = {"bit8_min": lowest, "bit8_max": highest}
    launch = {"BLOCK": 1 << (group - 1).bit_length(), "num_warps": 1, "num_stages": 1}
    _per_token_group_quant_8bit[grid](activations, numbers, factors, group, group, least, **limits, **launch)
