"""Micro-batches through the model, with or without gradients, under Megatron's pipeline schedules."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from megatron.core.distributed import finalize_model_grads
from megatron.core.pipeline_parallel import get_forward_backward_func
from torch import Tensor

from core.algorithm.loss import Metrics
from core.megatron.rows.packing import Row
from core.megatron.rows.tokens import MicroBatch, MicroBatches

Predict = Callable[[Any, Row], Any]  # model and row -> on the last stage log-probs and entropies, or values and None
Loss = Callable[[Tensor, Any, Any], tuple[Tensor, Metrics]]  # those two, and what `Picks.pick` gives
Batches = MicroBatches | Sequence[MicroBatch]


@dataclass(frozen=True)
class Output:
    """What the last stage saw of one micro-batch."""

    index: Tensor  # [R] as in MicroBatch
    num_tokens: int  # of its row
    logprobs: Tensor  # [R] float32, CPU; of a critic its values
    metrics: dict[str, float]


def train_batch(model: Any, micro_batches: Batches, predict: Predict, loss: Loss) -> list[Output]:
    """Forward and backward; gradients are summed over micro-batches and data-parallel ranks.

    Returns:
        outputs in order on the last pipeline stage, nothing on the others.
    Collective: all trainer ranks, each with the same number of micro-batches.
    """
    _set_mode(model, training=True)
    model.config.finalize_model_grads_func = _finish_gradients
    return _run(model, micro_batches, predict, loss, forward_only=False)


@torch.no_grad()
def evaluate_batch(model: Any, micro_batches: Batches, predict: Predict, loss: Loss | None = None) -> list[Output]:
    """Forward only, with the loss's metrics if it is given. Returns and collective as `train_batch`."""
    _set_mode(model, training=False)
    return _run(model, micro_batches, predict, loss, forward_only=True)


def _set_mode(model: Any, *, training: bool) -> None:
    """Only if it changes: a walk over all modules takes longer than a small model's forward pass on the GPU."""
    if model.training != training:
        model.train(training)


@dataclass(frozen=True)
class _Computed:
    """An output that is still on the device: reading it would wait for the device, and leave that without work."""

    index: Tensor  # [R]
    num_tokens: int
    logprobs: Tensor  # [R]
    names: tuple[str, ...]
    values: Tensor  # one per name

    def read(self) -> Output:
        metrics = dict(zip(self.names, self.values.tolist(), strict=True))
        return Output(self.index, self.num_tokens, self.logprobs.float().cpu(), metrics)


def _run(model: Any, micro_batches: Batches, predict: Predict, loss: Loss | None, forward_only: bool) -> list[Output]:
    computed: list[_Computed] = get_forward_backward_func()(
        forward_step_func=partial(_forward, predict, loss),
        data_iterator=iter(micro_batches),
        model=[model],
        num_microbatches=len(micro_batches),
        seq_length=1,  # not used: stages tell each other the length of each row
        micro_batch_size=1,
        forward_only=forward_only,
    )
    return [one.read() for one in computed]


def _forward(
    predict: Predict, loss: Loss | None, batches: Iterator[MicroBatch], model: Any
) -> tuple[Any, Callable[..., Any]]:
    batch = next(batches)
    return predict(model, batch.row), partial(_finish, loss, batch)


def _finish(loss: Loss | None, batch: MicroBatch, predicted: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, _Computed]:
    """(loss, number of tokens, output). Zero tokens: Megatron divides by them only if there are some."""
    logprobs, entropy = predicted
    total, metrics = logprobs.new_zeros(()), dict[str, Tensor]()
    if loss is not None:
        assert batch.inputs is not None
        total, metrics = loss(logprobs, entropy, batch.inputs)
    numbers = [value.detach().float() for value in metrics.values()]
    copied = torch.stack(numbers) if numbers else logprobs.new_zeros(0)  # Megatron may divide a loss in place
    computed = _Computed(batch.index, len(batch.row.tokens), logprobs.detach(), tuple(metrics), copied)
    return total, torch.zeros((), dtype=torch.int, device=logprobs.device), computed


def _finish_gradients(model: list[Any], _num_tokens: Tensor | None = None, **options: Any) -> None:
    """Megatron's reductions over all kinds of ranks, without its division by a number of tokens."""
    finalize_model_grads(model, None, **options)
