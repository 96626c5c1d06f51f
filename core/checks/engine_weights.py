"""Engines that compute in few bits: on which devices, beside which keys, for which families and sizes."""

from __future__ import annotations

from collections.abc import Iterator

from common.mistake import Mistake, Wrong
from core.config.schema import RunConfig
from core.pretrained.few_bits import FEW_BITS, FewBits
from core.sglang.attention_groups import attention_groups
from modelcfg import ModelShape, matrices
from modelcfg.blocks import Cut, uncut_blocks

KEY = "placement.engine_weights"
WHOLE = "set it to whole"


def few_bits_have_their_keys(config: RunConfig) -> Iterator[Mistake]:
    """Trainers that quantise, devices that compute so, and activations in bfloat16 on GPUs."""
    placement = config.placement
    way = FEW_BITS.get(placement.engine_weights)
    if way is None:
        return
    on_cpu = placement.device == "cpu"
    if on_cpu and not way.on_cpus:
        found = f"{way.word} with placement.device cpu"
        yield Mistake(KEY, None, found, way.cards, f"{_instead('cpu', None)}, or placement.device to cuda")
    if placement.trainers == "none" or placement.engines == "none":
        which = "trainers" if placement.trainers == "none" else "engines"
        found = f"{way.word} with placement.{which} none"
        wanted = f"trainer ranks and engines: a weight sync makes the {way.word} of what is trained"
        yield Mistake(KEY, None, found, wanted, "remove it")
    if config.model.dtype == "float32" and not (on_cpu and way.on_cpus):
        wanted = f"bfloat16, in which such an engine has what is not in {way.word}"
        yield Mistake(KEY, None, f"{way.word} with model.dtype float32", wanted, f"{WHOLE}, or model.dtype to bfloat16")


def sizes_fit(config: RunConfig, shape: ModelShape | None) -> Iterator[Mistake]:
    """A family that was built, and sizes that end where blocks do, on each rank of an engine."""
    placement = config.placement
    way = FEW_BITS.get(placement.engine_weights)
    if way is not None and shape is not None:
        ranks, experts = placement.engine_tensor_parallel, placement.engine_options.get("ep_size")
        groups = attention_groups(placement.engine_options)
        if (wrong := misfit(shape, way, ranks, experts or 1, groups)) is not None:
            yield wrong.at(KEY)


def misfit(shape: ModelShape, way: FewBits, ranks: int, expert_ranks: int, groups: int = 1) -> Wrong | None:
    """Why engines cannot have a model so; None: they can.

    Args:
        way: what they would have its linear layers in.
        ranks: of an engine. expert_ranks: of these, those over which experts are shared out whole. groups: of these,
            each with the whole attention.
    """
    if unbuilt := _unbuilt(shape, way):
        found = f"{way.word} for {shape.architecture}, {unbuilt}"
        return Wrong(found, "a family whose linear layers engines load again as they lie in the sync", WHOLE)
    part = uncut_blocks(shape, Cut(ranks, max(1, ranks // expert_ranks), groups), way.grain)
    if part is None:
        return None
    of_ranks = f" on each of an engine's {ranks} ranks" if ranks > 1 else ""
    found = f"{way.word} with {part.name} of {part.rows} × {part.columns}{of_ranks}"
    fewer = "lower placement.engine_tensor_parallel, or " if ranks > 1 else ""
    return Wrong(found, f"rows and columns that {way.grain} divides, {way.why_grain}", fewer + WHOLE)


def _unbuilt(shape: ModelShape, way: FewBits) -> str:
    """What of a family engines do not have so; empty: it has nothing of that kind."""
    if not matrices(shape):
        return "whose files have all experts of a layer in one tensor"
    if shape.latent is not None and not way.latent:
        return "whose attention is latent"
    return "which has layers with a state" if shape.delta is not None and not way.states else ""


def not_computed(way: FewBits, device: str, capability: float | None, shape: ModelShape | None = None) -> Wrong | None:
    """Why it does not compute so, and what it does instead; None: it does, or nothing is known of it.

    Args:
        device: "cpu" or "cuda".
        capability: NVIDIA's compute capability.
        shape: of the model, which may not have another way; None: not known.
    """
    if _computes(way, device, capability):
        return None
    there = f"GPUs of compute capability {capability}" if device == "cuda" else device
    return Wrong(f"{way.word} on {there}", way.cards, _instead(device, capability, shape))


def _computes(way: FewBits, device: str, capability: float | None) -> bool:
    if device != "cuda":
        return way.on_cpus
    return capability is None or way.least <= capability < way.below


def _instead(device: str, capability: float | None, shape: ModelShape | None = None) -> str:
    ways = [way for way in FEW_BITS.values() if _computes(way, device, capability)]
    words = [way.word for way in ways if shape is None or not _unbuilt(shape, way)]
    return f"set it to {' or '.join([*words, 'whole'])}"
