"""Forward and backward pass of small rows as CUDA graphs: the host starts two graphs instead of thousands of kernels.

A small model computes faster than the host can tell the GPU what to do. Rows are padded to few sizes (`fixed_rows`).
The first row of a size is computed kernel by kernel, by which everything is compiled that it needs; the second one is
captured; from then on the graphs are replayed. Where all rows are small that is done before the first. Graphs hold the
addresses of parameters and gradients, so these have to stay where they are: not for trainers that give memory back.
Sizes share their memory, as one row is computed at a time. Without tensor or pipeline parallel, and without recompute,
which asks for random states.
Legend: T padded tokens, also the number of targets.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from core.megatron.graphs.fixed_rows import FixedRow, fixed_size
from core.megatron.model import forward, forward_row
from core.megatron.rows.packing import Row, Segment
from core.megatron.sizes.graphs import FixedSize

log = logging.getLogger("trainer")
_ZERO = torch.zeros(1, dtype=torch.int64)
SMALL_ROW = Row(_ZERO, _ZERO, (Segment(0, 1),), _ZERO, _ZERO, _ZERO, _ZERO)  # one token that predicts another
Predicted = tuple[Tensor, Tensor]  # log-probs and entropies


class RowGraphs:
    """Computes rows for `train_batch`; gradients are added to the parameters' `main_grad`."""

    def __init__(self, most_tokens: int) -> None:
        """Begin without graphs.

        Args:
            most_tokens: larger rows are computed kernel by kernel.
        """
        self._most_tokens = most_tokens
        self._sizes: dict[FixedSize, _SizedRow] = {}
        self._memory = _Memory()

    def __call__(self, model: Any, row: Row) -> Predicted:
        """[R] log-probs and entropies of a row, by Megatron's model with its gradient buffers around it."""
        size = fixed_size(row, self._most_tokens)
        if size is None:
            return forward_row(model, row, "cuda")  # type: ignore[no-any-return]
        logprobs, entropy = self._sized(size).compute(model, row)
        return logprobs[: len(row.targets)], entropy[: len(row.targets)]

    def prepare(self, model: Any, sizes: Iterable[FixedSize]) -> None:
        """Capture ahead of the first row; where memory runs out, none. Adds to `main_grad` what nobody wants."""
        began = time.monotonic()
        try:
            for size in sizes:
                self._sized(size).prepare(model)
            torch.cuda.synchronize()
        except torch.OutOfMemoryError as error:
            self._memory.give_up("no memory for all sizes", error)
        if self._memory.failed:
            self._sizes.clear()  # the memory of those that were made is wanted by rows now
            torch.cuda.empty_cache()
            return
        log.info("rows of %d sizes are CUDA graphs, after %.1f s", len(self._sizes), time.monotonic() - began)

    def _sized(self, size: FixedSize) -> _SizedRow:
        if size not in self._sizes:
            self._sizes[size] = _SizedRow(size, self._memory)
        return self._sizes[size]


class _Memory:
    """What all captures use in turn: a pool of memory, and a stream; and the tensors whose addresses they hold."""

    def __init__(self) -> None:
        self.pool, self.stream = torch.cuda.graph_pool_handle(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self.failed = False
        self._parameters: list[Any] = []

    def addresses(self, model: Any) -> list[int]:
        """Addresses of parameters and gradients. Modules are walked through once: a walk is as slow as some replays."""
        self._parameters = self._parameters or list(model.parameters())
        return [address for p in self._parameters for address in (p.data_ptr(), p.main_grad.data_ptr())]

    def give_up(self, why: str, error: Exception) -> None:
        """Capture nothing from now on."""
        self.failed = True
        log.warning("rows are computed kernel by kernel: %s", why, exc_info=error)

    def capturing(self, graph: torch.cuda.CUDAGraph) -> torch.cuda.graph:
        """Kernels that are started within are recorded instead. Other threads may use the GPU meanwhile."""
        return torch.cuda.graph(graph, self.pool, self.stream, capture_error_mode="thread_local")


class _SizedRow:
    """All rows of one size."""

    def __init__(self, size: FixedSize, memory: _Memory) -> None:
        self._row, self._memory = FixedRow(size, "cuda"), memory
        self._seen = False
        self._captured: _Captured | None = None

    def compute(self, model: Any, row: Row) -> Predicted:
        """[T] log-probs and entropies."""
        self._row.fill(row)
        if self._seen and not self._memory.failed:
            self._capture(model)
        self._seen = True
        if self._captured is None:
            return forward(model, self._row.tokens, self._row.params())  # type: ignore[no-any-return]
        return self._captured.predict()

    def prepare(self, model: Any) -> None:
        """Compute and capture the size now, as two rows of it would."""
        for _ in range(2):
            logprobs, _entropy = self.compute(model, SMALL_ROW)
            logprobs.sum().backward()  # type: ignore[no-untyped-call]

    def _capture(self, model: Any) -> None:
        """Capture the size, unless that has been done and nothing has moved since."""
        addresses = self._memory.addresses(model)
        if self._captured is not None and self._captured.addresses == addresses:
            return
        self._captured = None
        try:
            self._captured = _Captured(model, self._row, self._memory, addresses)
        except RuntimeError as error:  # also torch.OutOfMemoryError; nothing has been computed yet
            _leave_capture()
            self._memory.give_up(f"no CUDA graph of {self._row.size.tokens} tokens", error)


def _leave_capture() -> None:
    """A capture that failed leaves the random generator waiting for its end; a copy of it does not wait."""
    generator = torch.cuda.default_generators[torch.cuda.current_device()]
    generator.graphsafe_set_state(generator.clone_state())


class _Captured:
    """Two graphs, and the tensors by which one gets at their results."""

    def __init__(self, model: Any, row: FixedRow, memory: _Memory, addresses: list[int]) -> None:
        self.addresses = addresses
        self._forward, self._backward = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        owners = dict(model.named_parameters())
        leaves = {name: alias(parameter) for name, parameter in owners.items()}
        with memory.capturing(self._forward):
            outputs = forward(partial(_call, model, leaves), row.tokens, row.params())
        taught = [output for output in outputs if output.requires_grad]
        self._incoming = [torch.zeros_like(output) for output in taught]
        with memory.capturing(self._backward):
            add_gradients(taught, list(leaves.values()), self._incoming)
        self._outputs = [output.detach() for output in outputs]
        self._taught = [output.requires_grad for output in outputs]
        # a tensor with a gradient, so that there is a backward pass at all
        self._anchor = torch.zeros((), device=row.device, requires_grad=True)

    def predict(self) -> Predicted:
        """Log-probs and entropies of the row that is there now, with gradients as far as there are any."""
        logprobs, entropy = _Replay.apply(self._anchor, self)  # type: ignore[no-untyped-call]
        return logprobs, entropy

    def run_forward(self) -> list[tuple[Tensor, bool]]:
        """Copies of the outputs, and whether each has a gradient."""
        self._forward.replay()
        return [(output.clone(), taught) for output, taught in zip(self._outputs, self._taught, strict=True)]

    def run_backward(self, gradients: tuple[Tensor, ...]) -> None:
        """Gradients of all outputs, to the parameters."""
        given = [gradient for gradient, taught in zip(gradients, self._taught, strict=True) if taught]
        for here, gradient in zip(self._incoming, given, strict=True):
            here.copy_(gradient)
        self._backward.replay()


class _Replay(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, _anchor: Tensor, captured: _Captured) -> tuple[Tensor, ...]:
        ctx.captured = captured
        outputs = captured.run_forward()
        ctx.mark_non_differentiable(*(output for output, taught in outputs if not taught))
        return tuple(output for output, _ in outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None]:
        ctx.captured.run_backward(gradients)
        return None, None


def alias(parameter: Any) -> Any:
    """The parameter by another name: autograd takes a parameter's gradient on the stream that saw it first."""
    other = parameter.detach().requires_grad_()
    other.main_grad = parameter.main_grad  # for the products that add to it themselves
    return other


def add_gradients(outputs: Sequence[Tensor], leaves: Sequence[Any], incoming: Sequence[Tensor]) -> None:
    """Add to the `main_grad` of each leaf its gradient, as Megatron's hooks do; None where a product has added it."""
    gradients = torch.autograd.grad(outputs, leaves, incoming, allow_unused=True)
    pairs = [(leaf.main_grad, grad) for leaf, grad in zip(leaves, gradients, strict=True) if grad is not None]
    torch._foreach_add_([main_grad for main_grad, _ in pairs], [grad for _, grad in pairs])


def _call(model: Any, parameters: dict[str, Tensor], *arguments: Any, **options: Any) -> Any:
    return functional_call(model, parameters, arguments, options)
