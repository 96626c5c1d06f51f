"""Log-prob of each target and entropy of each prediction, over logits whose vocabulary is split over the tensor group.

No fp32 copy of the logits is ever whole: a kernel reads them once, or on a CPU torch reads them in row chunks.
Backward writes the gradient over the logits.
Legend: R targets, P the vocabulary columns of this rank.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor

from core.megatron.layers.fused import load

fused_vocab = load("vocab")

CHUNK_ELEMENTS = {"cpu": 2**20, "cuda": 2**27}


def target_log_probs(
    logits: Tensor,
    targets: Tensor,
    vocab_size: int,
    group: dist.ProcessGroup,
    temperature: float = 1.0,
    entropy_gradient: bool = False,
) -> tuple[Tensor, Tensor]:
    """Log-probs and entropies of softmax(logits / temperature).

    Args:
        logits: [R, P] of this rank, any float dtype; overwritten by backward.
        targets: [R] int64 token ids of the whole vocabulary.
        vocab_size: columns at or beyond it are padding and take no part.
    Returns:
        [R] float32 log-probs, and [R] float32 entropies, these without gradient unless `entropy_gradient`.
    Collective: all ranks of `group`.
    """
    result = _TargetLogProbs.apply(logits, targets, vocab_size, group, temperature, entropy_gradient)  # type: ignore[no-untyped-call]
    return cast(tuple[Tensor, Tensor], result)


class _TargetLogProbs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        targets: Tensor,
        vocab_size: int,
        group: dist.ProcessGroup,
        temperature: float,
        entropy_gradient: bool,
    ) -> tuple[Tensor, Tensor]:
        first = group.rank() * logits.shape[1]
        num_valid = min(max(vocab_size - first, 0), logits.shape[1])
        ctx.is_local = (targets >= first) & (targets < first + num_valid)
        ctx.column = torch.where(ctx.is_local, targets - first, 0)
        ctx.num_valid, ctx.temperature, ctx.entropy_gradient = num_valid, temperature, entropy_gradient
        peak, total, weighted, chosen = _reduce(_local_statistics(ctx, logits), group)
        log_total = total.log()
        entropy = log_total - weighted / total  # log sum exp(z) - mean z, both relative to the peak
        ctx.log_normaliser, ctx.entropy = peak + log_total, entropy
        ctx.logits = logits  # not save_for_backward: backward overwrites it
        if not entropy_gradient:
            ctx.mark_non_differentiable(entropy)
        return chosen - ctx.log_normaliser, entropy

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """d logp = onehot - p; d entropy = -p (log p + entropy)."""
        for_log_prob, for_entropy = gradients
        logits, ctx.logits = ctx.logits, None
        if logits.is_cuda and fused_vocab is not None:
            fused_vocab.gradient_in_place(
                logits,
                ctx.column,
                ctx.is_local,
                num_valid=ctx.num_valid,
                temperature=ctx.temperature,
                log_normaliser=ctx.log_normaliser,
                entropy=ctx.entropy,
                for_log_prob=for_log_prob,
                for_entropy=for_entropy if ctx.entropy_gradient else None,
            )
            return logits, None, None, None, None, None
        logits[:, ctx.num_valid :].zero_()
        for rows in _chunks(logits):
            part = logits[rows, : ctx.num_valid]
            log_p = _scaled(part, ctx.temperature) - ctx.log_normaliser[rows, None]
            gradient = log_p.exp()
            if ctx.entropy_gradient:
                log_p.add_(ctx.entropy[rows, None]).mul_(for_entropy[rows, None]).add_(for_log_prob[rows, None])
                gradient.mul_(log_p).neg_()
            else:
                gradient.mul_(-for_log_prob[rows, None])
            if ctx.num_valid:
                own = torch.where(ctx.is_local[rows], for_log_prob[rows], 0.0)
                gradient.scatter_add_(1, ctx.column[rows, None], own[:, None])
            if ctx.temperature != 1.0:
                gradient.div_(ctx.temperature)
            part.copy_(gradient)
        return logits, None, None, None, None, None


def _local_statistics(ctx: Any, logits: Tensor) -> Tensor:
    """[4, R] float32 over this rank's columns: peak, sum of e = exp(z - peak), sum of e (z - peak), target's z."""
    result = torch.zeros(4, logits.shape[0], dtype=torch.float32, device=logits.device)
    result[0] = torch.finfo(torch.float32).min
    if not ctx.num_valid:
        return result
    if logits.is_cuda and fused_vocab is not None:
        found: Tensor = fused_vocab.statistics(logits, ctx.column, ctx.is_local, ctx.num_valid, ctx.temperature)
        return found
    for rows in _chunks(logits):
        z = _scaled(logits[rows, : ctx.num_valid], ctx.temperature)
        chosen = z.gather(1, ctx.column[rows, None])[:, 0]
        peak = z.amax(1)
        z = z - peak[:, None]
        e = z.exp()
        result[0, rows], result[1, rows], result[2, rows] = peak, e.sum(1), torch.linalg.vecdot(e, z)
        result[3, rows] = torch.where(ctx.is_local[rows], chosen, 0.0)
    return result


def _reduce(local: Tensor, group: dist.ProcessGroup) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Bring every rank's sums to the common peak and add them up."""
    if group.size() == 1 or not local.numel():
        return local[0], local[1], local[2], local[3]
    peak = local[0].clone()
    dist.all_reduce(peak, op=dist.ReduceOp.MAX, group=group)
    shift = local[0] - peak
    factor = shift.exp()
    sums = torch.stack((local[1] * factor, (local[2] + local[1] * shift.clamp(min=-1e30)) * factor, local[3]))
    dist.all_reduce(sums, group=group)
    return peak, sums[0], sums[1], sums[2]


def _chunks(logits: Tensor) -> list[slice]:
    step = max(1, CHUNK_ELEMENTS[logits.device.type] // logits.shape[1])
    return [slice(first, first + step) for first in range(0, logits.shape[0], step)]


def _scaled(part: Tensor, temperature: float) -> Tensor:
    return part.float() if temperature == 1.0 else part.float() / temperature
