"""Engines that compute in fp8: on which devices, beside which keys, for which families and sizes."""

from __future__ import annotations

from collections.abc import Iterator

from common.mistake import Mistake, Wrong
from core.config.schema import RunConfig
from core.pretrained.packing import PUBLISHED
from core.sglang.attention_groups import attention_groups
from modelcfg import ModelShape, matrices
from modelcfg.blocks import Cut, uncut_blocks

KEY = "placement.engine_weights"
WHOLE = "set it to whole"
FP8_CAPABILITY = 8.9  # below it SGLang rearranges loaded weights for another kernel: no sync would fit
CARDS = f"GPUs of compute capability {FP8_CAPABILITY} or more, whose engines have kernels for it"


def fp8_has_its_keys(config: RunConfig) -> Iterator[Mistake]:
    """Trainers that quantise, GPUs, and activations in bfloat16."""
    placement = config.placement
    if placement.engine_weights != "fp8":
        return
    if placement.device == "cpu":
        yield Mistake(KEY, None, "fp8 with placement.device cpu", CARDS, f"{WHOLE}, or placement.device to cuda")
    if placement.trainers == "none" or placement.engines == "none":
        which = "trainers" if placement.trainers == "none" else "engines"
        found = f"fp8 with placement.{which} none"
        wanted = "trainer ranks and engines: a weight sync makes the fp8 of what is trained"
        yield Mistake(KEY, None, found, wanted, "remove it")
    if config.model.dtype == "float32":
        wanted = "bfloat16, in which such an engine has what is not in fp8"
        yield Mistake(KEY, None, "fp8 with model.dtype float32", wanted, f"{WHOLE}, or model.dtype to bfloat16")


def blocks_fit(config: RunConfig, shape: ModelShape | None) -> Iterator[Mistake]:
    """A family that was built, and sizes that end where blocks do, on each rank of an engine."""
    placement = config.placement
    if placement.engine_weights == "fp8" and shape is not None:
        ranks, experts = placement.engine_tensor_parallel, placement.engine_options.get("ep_size")
        groups = attention_groups(placement.engine_options)
        if (wrong := misfit(shape, ranks, experts or 1, groups)) is not None:
            yield wrong.at(KEY)


def misfit(shape: ModelShape, ranks: int, expert_ranks: int, groups: int = 1) -> Wrong | None:
    """Why engines cannot have a model in fp8; None: they can.

    Args:
        ranks: of an engine. expert_ranks: of these, those over which experts are shared out whole. groups: of these,
            each with the whole attention.
    """
    if not matrices(shape):
        found = f"fp8 for {shape.architecture}, whose files have all experts of a layer in one tensor"
        return Wrong(found, "a family whose linear layers engines load again as they lie in the sync", WHOLE)
    block = PUBLISHED.rows
    part = uncut_blocks(shape, Cut(ranks, max(1, ranks // expert_ranks), groups), block)
    if part is None:
        return None
    of_ranks = f" on each of an engine's {ranks} ranks" if ranks > 1 else ""
    found = f"fp8 with {part.name} of {part.rows} × {part.columns}{of_ranks}"
    fewer = "lower placement.engine_tensor_parallel, or " if ranks > 1 else ""
    return Wrong(found, f"rows and columns that {block} divides, as a block has a factor of its own", fewer + WHOLE)


def not_in_fp8(device: str, capability: float | None) -> str:
    """What does not compute in fp8, by name; empty: it does, or nothing is known of it.

    Args:
        device: "cpu" or "cuda".
        capability: NVIDIA's compute capability.
    """
    if device != "cuda":
        return device
    old = capability is not None and capability < FP8_CAPABILITY
    return f"GPUs of compute capability {capability}" if old else ""
