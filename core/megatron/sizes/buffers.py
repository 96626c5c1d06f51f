"""Bytes of a trainer rank's flat buffers, from its parameters' sizes: what `parking` will find, without making it.

    part         without                          with the distributed optimiser
    parameters   flat, tensors padded             in Megatron's buffer, padded to a multiple for all ranks
    gradients    Megatron's buffer, fp32          the same, padded likewise
    masters      fp32 of bf16 parameters          of the part of the buffer that is this rank's
    moments      two, fp32, shaped as what Adam works on
    reference    flat, in the parameters' precision; only if there is one
    base         flat, likewise; what is not trained: adapters' base, or frozen. But for the reference all other parts
                 are of what is trained alone
    critic       a second model's masters, moments and parameters; only if there is one. Its gradients are `gradients`

No torch: the planner counts on a login node.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from common.units import FP32_BYTES
from modelcfg.shards import EMBEDDING, EXPERTS, OUTPUT

ALIGNMENT = 64  # elements: 128 bytes or more, as vectorised kernels like it
MERGED_AT_ONCE = 2**22  # elements of a weight with an adapter that are in float32 at a time
BUCKET_MULTIPLE = 128  # elements: megatron-core 0.16 ends a shared-out bucket at a multiple of this and of the ranks


@dataclass(frozen=True)
class Sharing:
    """How a rank's optimiser state is held. `ranks`: over how many it is shared out; 1 can be shared out, too.

    Of `expert_parallel` ranks, `tensor_parallel` ones among them, each has experts of its own, in buffers of their own,
    whose state is shared out over the ranks that have the same ones, or the same parts of them.
    """

    distributed: bool = False
    ranks: int = 1
    rank: int = 0
    expert_parallel: int = 1
    pipeline_parallel: int = 1
    tied: bool = False
    tensor_parallel: int = 1
    expert_tensor_parallel: int = 1

    @property
    def of_experts(self) -> Sharing:
        """The same of the experts, of the first of the tensor-parallel ranks."""
        ranks, place = self.ranks * self.tensor_parallel, self.rank * self.tensor_parallel
        apart = self.expert_parallel * self.expert_tensor_parallel
        return replace(self, ranks=ranks // apart, rank=place // apart)


def room(numel: int) -> int:
    """Elements that a tensor takes in a flat buffer."""
    return -(-numel // ALIGNMENT) * ALIGNMENT


def buffer_bytes(
    parameters: Mapping[str, int],
    element_bytes: int,
    sharing: Sharing,
    kl: bool,
    streamed: bool = False,
    base: Mapping[str, int] | None = None,
) -> dict[str, int]:
    """Part -> bytes on the device when everything is there.

    Args:
        parameters: elements of each parameter of the rank that is trained, in the order of the model.
        element_bytes: of a parameter: 2 (bf16, with fp32 masters) or 4 (fp32, without).
        kl: whether there is a reference model.
        streamed: masters and moments stay on the host.
        base: elements of each parameter that is not trained.
    """
    flat, frozen = (sum(map(room, each.values())) for each in (parameters, base or {}))
    if sharing.distributed:
        held = parameter_room = sum(buffer.numel for buffer in _buffers(parameters, sharing))
    else:
        held, parameter_room = sum(parameters.values()), flat
    own = 0 if streamed else state_elements(parameters, sharing)
    return {
        "masters": own * FP32_BYTES if element_bytes < FP32_BYTES else 0,
        "moments": 2 * own * FP32_BYTES,
        "parameters": parameter_room * element_bytes,
        "gradients": held * FP32_BYTES,
        "reference": (flat + frozen) * element_bytes if kl else 0,
        "base": frozen * element_bytes,
        "critic": 0,
    }


def with_critic(policy: Mapping[str, int], critic: Mapping[str, int]) -> dict[str, int]:
    """The parts of both models: two `buffer_bytes`, the second of the critic."""
    own = sum(critic[part] for part in ("masters", "moments", "parameters"))
    return {**policy, "gradients": policy["gradients"] + critic["gradients"], "critic": own}


def state_elements(parameters: Mapping[str, int], sharing: Sharing) -> int:
    """Elements of each array of Adam's state, padding included."""
    if not sharing.distributed:
        return sum(map(room, parameters.values()))
    return sum(room(n) for buffer in _buffers(parameters, sharing) for n in buffer.own())


def kept_parts(element_bytes: int, sharing: Sharing, streamed: bool = False) -> frozenset[str]:
    """The parts that are copied to the host when they leave; the others are dropped."""
    makes_parameters = element_bytes < FP32_BYTES and not sharing.distributed and not streamed
    kept = {"masters", "moments", "reference", "base", "critic"}
    return frozenset(kept | (set() if makes_parameters else {"parameters"}))


def _buffers(parameters: Mapping[str, int], sharing: Sharing) -> Iterator[_Buffer]:
    """Megatron's buffers of a rank: one, or two under expert parallelism."""
    if sharing.expert_parallel == 1:
        yield _Buffer(parameters, sharing)
        return
    yield _Buffer({name: n for name, n in parameters.items() if EXPERTS not in name}, sharing)
    of_experts = {name: n for name, n in parameters.items() if EXPERTS in name}
    yield _Buffer(of_experts, sharing.of_experts)


class _Buffer:
    """Megatron's buffer of parameters and gradients under the distributed optimiser, last parameter first.

    Differs from megatron-core 0.16: only one dtype, and no bucket size, as nothing overlaps with the backward pass.
    """

    def __init__(self, parameters: Mapping[str, int], sharing: Sharing) -> None:
        self._multiple = math.lcm(sharing.ranks, BUCKET_MULTIPLE)
        self._sharing = sharing
        self._places: list[tuple[int, int]] = []
        self._buckets: list[tuple[int, int]] = []
        begin = position = 0
        # an embedding that two stages share has a bucket of its own, so that both share it out alike
        alone = {EMBEDDING, OUTPUT} if sharing.tied and sharing.pipeline_parallel > 1 else set()
        for name, numel in reversed(list(parameters.items())):
            position = room(position)
            if name in alone and position > begin:
                begin = position = self._close(begin, position)
            self._places.append((position, position + numel))
            position += numel
            if name in alone:
                begin = position = self._close(begin, position)
        self.numel = self._close(begin, position) if position > begin else begin

    def _close(self, begin: int, end: int) -> int:
        end = -(-end // self._multiple) * self._multiple
        self._buckets.append((begin, end))
        return end

    def own(self) -> Iterator[int]:
        """Elements of each parameter that this rank's shares of the buckets hold."""
        ranks, rank = self._sharing.ranks, self._sharing.rank
        for begin, end in self._buckets:
            share = (end - begin) // ranks
            low, high = begin + rank * share, begin + (rank + 1) * share
            for first, last in self._places:
                if (count := min(last, high) - max(first, low)) > 0:
                    yield count
