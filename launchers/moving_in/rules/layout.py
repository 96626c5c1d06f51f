"""How the model is shared out over trainer ranks: what of the script's layout is possible here."""

from __future__ import annotations

import math
from typing import Any

from core.checks.model import shape_divides
from core.config.schema import RunConfig
from core.config.sections.placement import PlacementConfig
from launchers.moving_in.draft import Draft
from launchers.moving_in.flags import Flag, Flags, whole
from launchers.moving_in.rules.shape import shape_of
from modelcfg import ModelShape
from modelcfg.stages import Stages


def layout(flags: Flags, draft: Draft, ranks: int) -> None:
    """Tensor, pipeline, context, sequence and expert parallel sizes.

    Args:
        ranks: trainer ranks of the run.
    """
    shape = shape_of(flags)
    tensor = _tensor(flags, draft, shape)
    pipeline = _pipeline(flags, draft)
    flag = flags.take("sequence_parallel")
    if flag and tensor == 1:
        draft.skip(flag, "with tensor_parallel 1 there is nothing to share out")
    elif flag:
        draft.put("placement.sequence_parallel", True, flag)
    _context(flags, draft, max(1, ranks // (tensor * pipeline)), shape)
    spread = 1 if flags.look("expert_tensor_parallel_size") else tensor
    cut = _of_an_expert(flags, draft, tensor, shape)
    _experts(flags, draft, max(1, ranks // (pipeline * cut)), spread, shape)
    if tensor > 1 and shape is not None and shape.num_experts:
        draft.default("placement.sequence_parallel", True, "with experts each tensor-parallel rank has its own tokens")
        if cut < tensor:
            share = tensor // cut
            draft.default("placement.expert_parallel", share, "tensor-parallel ranks share out the experts, too")


def _tensor(flags: Flags, draft: Draft, shape: ModelShape | None) -> int:
    flag = flags.take("tensor_model_parallel_size")
    wanted = max(1, whole(flag.text, 1)) if flag else 1
    possible, reason = wanted, ""
    while shape is not None and possible > 1 and (found := _against(shape, possible)):
        possible, reason = next(size for size in range(possible - 1, 0, -1) if wanted % size == 0), found
    return _put(draft, "tensor_parallel", flag, (wanted, possible), reason)


def _against(shape: ModelShape, tensor: int) -> str:
    """Why the shape is not shared out over that number of tensor parallel ranks; empty: it is."""
    sections: dict[str, Any] = {"placement": PlacementConfig(tensor_parallel=tensor)}
    mistakes = shape_divides(RunConfig.model_construct(**sections), shape)
    found = [one for one in mistakes if one.key == "placement.tensor_parallel"]
    return found[0].wanted.replace(shape.name, "the model").removeprefix("1, as ") if found else ""


def _pipeline(flags: Flags, draft: Draft) -> int:
    """Stages, and the lengths of those at the ends; where these do not add up with the layers, equal stages."""
    flag, layers = flags.take("pipeline_model_parallel_size"), whole(flags.said("num_layers"), 0)
    ends = {end: flags.take(f"decoder_{end}_pipeline_num_layers") for end in ("first", "last")}
    said = {end: (one, whole(one.text, 0)) for end, one in ends.items() if one is not None}
    wanted = max(1, whole(flag.text, 1)) if flag else 1
    if wanted == 1:
        for one, _ in said.values():
            draft.skip(one, "with pipeline_parallel 1 the one stage has all layers")
    elif said and (layers == 0 or _add_up(wanted, layers, {end: count for end, (_, count) in said.items()})):
        for end, (one, count) in said.items():
            draft.put(f"placement.pipeline_{end}_layers", count, one)
        return _put(draft, "pipeline_parallel", flag, (wanted, wanted), "")
    else:
        for one, _ in said.values():
            draft.lose(one, f"it does not add up with {layers} layers", "set placement.pipeline_last_layers", "memory")
    possible = next(size for size in range(wanted, 0, -1) if wanted % size == 0 and layers % size == 0)
    return _put(draft, "pipeline_parallel", flag, (wanted, possible), "the layers do not go into equal stages")


def _add_up(number: int, layers: int, ends: dict[str, int]) -> bool:
    return min(ends.values()) > 0 and Stages(number, **ends).add_up(layers)


def _context(flags: Flags, draft: Draft, copies: int, shape: ModelShape | None) -> None:
    """Ranks that share out a row's tokens hold a copy of the model each; a state passes all of a row's tokens."""
    flag = flags.take("context_parallel_size")
    wanted = max(1, whole(flag.text, 1)) if flag else 1
    if flag and wanted == 1:
        draft.skip(flag, "a row is on one rank")
    elif flag and shape is not None and shape.delta is not None:
        _put(draft, "context_parallel", flag, (wanted, 1), "a state passes the tokens of a row one after the other")
    elif flag:
        reason = "the trainer ranks do not go into sets of this size"
        _put(draft, "context_parallel", flag, (wanted, math.gcd(wanted, copies)), reason)


def _of_an_expert(flags: Flags, draft: Draft, tensor: int, shape: ModelShape | None) -> int:
    """Tensor-parallel ranks that share an expert: one where nothing is said, by which Megatron means all of them."""
    flag = flags.take("expert_tensor_parallel_size")
    wanted = max(1, whole(flag.text, 1)) if flag else 1
    if wanted == 1 or (shape is not None and not shape.num_experts):
        if flag:
            draft.skip(flag, "an expert is whole on its rank")
        return 1
    possible = math.gcd(wanted, tensor, shape.ffn_hidden_size if shape is not None else tensor)
    reason = "neither the tensor-parallel ranks nor an expert's columns go into more parts"
    return _put(draft, "expert_tensor_parallel", flag, (wanted, possible), reason)


def _experts(flags: Flags, draft: Draft, ranks: int, spread: int, shape: ModelShape | None) -> None:
    """Experts go over all ranks of a stage, those that share one together.

    Args:
        spread: over how many tensor-parallel ranks the script cuts each expert without saying so; here these ranks have
            other experts each, which takes as much memory.
    """
    flag = flags.take("expert_model_parallel_size")
    wanted = max(1, whole(flag.text, 1)) if flag else 1
    possible = math.gcd(wanted, ranks)
    more = math.gcd(wanted * spread, ranks, shape.num_experts if shape is not None else wanted)
    if flag and more > possible == wanted > 1:
        draft.put("placement.expert_parallel", more, flag, "whole ones, in place of parts on tensor-parallel ranks")
    elif wanted > 1:
        reason = "the ranks of a stage do not go into sets of this size"
        _put(draft, "expert_parallel", flag, (wanted, possible), reason)


def _put(draft: Draft, key: str, flag: Flag | None, sizes: tuple[int, int], reason: str) -> int:
    wanted, possible = sizes
    if flag is not None:
        draft.put(f"placement.{key}", possible, flag, "the most that is possible" if possible != wanted else "")
        if possible != wanted:
            draft.lose(flag, reason, "look at the smaller one in placement, and ask ebbtide plan what fits", "memory")
    return possible
