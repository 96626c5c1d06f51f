"""Gradient buffers, Adam and the learning-rate schedule.

Left out: overlap of communication with backward, loss scaling (bf16 and fp32 need none).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.distributed as dist
from megatron.core.distributed import DistributedDataParallel, DistributedDataParallelConfig
from megatron.core.optimizer import OptimizerConfig, get_megatron_optimizer
from torch import Tensor

from core.config.sections.train import TrainConfig
from core.megatron import shim
from core.megatron.state.flat import flat_like, move_into_flat
from core.megatron.state.streamed import StreamedAdam


class NonFiniteGradient(RuntimeError):
    """The gradient norm is NaN or infinite; parameters have not been touched."""


class Optimizer:
    """One model's gradients and Adam state, behind three verbs.

    Gradients are plain sums over tokens, micro-batches and data-parallel ranks: the loss arrives normalised, and the
    model is built with calculate_per_token_loss, which switches Megatron's own divisions off.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        config: TrainConfig,
        total_steps: int,
        *,
        prepare: Callable[[list[Tensor]], None] | None = None,
        streamed: bool = False,
        lr_key: str = "train.lr",
    ) -> None:
        """Build gradients and Adam's state.

        Args:
            lr_key: the key of its learning rate, for messages.
            prepare: called with the fp32 masters, which it may change.
            streamed: masters and moments stay in host memory.
        """
        self.config, self._lr_key = config, lr_key
        self.total_steps = total_steps
        self.num_steps = 0
        self._forgets = False
        self.before_step: Callable[[], None] = _nothing  # what has to be there before parameters are touched
        self.model = wrap(model, config.use_distributed_optimizer)
        self.streams: list[StreamedAdam] = []
        with ExitStack() as stack:
            if streamed:  # the device need not hold gradients and masters at a time
                stack.enter_context(_without_gradients(self.model))
            self.chain: Any = _build(self.model, model.config.bf16, config)  # type: ignore[union-attr, arg-type]
            masters = _masters(self.chain, self.model.parameters())
            if prepare is not None:
                prepare(masters)
            if streamed:
                self.streams = [StreamedAdam(one) for one in self.adams]
        self.masters = [] if streamed else masters
        if not streamed:
            move_into_flat(masters)  # before Adam's state takes what memory is left
            for one in self.adams:
                _make_state(one.optimizer)

    @property
    def adams(self) -> list[Any]:
        """Adam of what all data-parallel ranks hold; under expert parallelism another one of this rank's experts. None
        has nothing to train.
        """
        found: list[Any] = self.chain.chained_optimizers
        return found

    @property
    def lr(self) -> float:
        """Learning rate of the next step."""
        return learning_rate(self.config, self.num_steps, self.total_steps)

    def set_num_steps(self, num_steps: int) -> None:
        """Go on as after this number of steps."""
        self.num_steps = num_steps
        for adam in self.adams:
            for state in adam.optimizer.state.values():
                state["step"].fill_(num_steps)

    def forget(self) -> None:
        """Have Adam begin at the next step as it did at the first; the learning rate's schedule goes on."""
        self._forgets = True

    def zero_grad(self) -> None:
        """Forget the gradients of the last step."""
        self.model.zero_grad_buffer()
        self.chain.zero_grad()

    @torch.no_grad()
    def step(self) -> float:
        """Clip and apply the summed gradients.

        Returns:
            the gradient norm before clipping, over all ranks.
        Raises:
            NonFiniteGradient: before anything is applied.
        Collective: all trainer ranks.
        """
        for group in self.chain.param_groups:
            group["lr"] = self.lr
        if self._forgets:
            self._empty_state()
        for stream in self.streams[:1]:  # one at a time: each takes memory
            stream.begin()
        self.chain.prepare_grads()
        norm = self._norm()
        if not math.isfinite(norm):
            for stream in self.streams:
                stream.give_up()
            raise NonFiniteGradient(
                f"gradient norm is {norm} at optimiser step {self.num_steps}: wanted a finite number. "
                "The parameters are as before this step: look at its samples and their log-probs, or lower "
                f"{self._lr_key}"
            )
        if self.config.clip_grad and norm > self.config.clip_grad:
            gradients = [p.grad for one in self.adams for p in one.get_parameters() if p.grad is not None]
            torch._foreach_mul_(gradients, self.config.clip_grad / (norm + 1e-6))
        self.before_step()
        self.chain.step_with_ready_grads()
        self.num_steps += 1
        return norm

    @contextmanager
    def state_at_hand(self) -> Iterator[None]:
        """All of Adam's state can be read and written inside, on the device or where it lies on the host."""
        with ExitStack() as stack:
            for stream in self.streams:
                stack.enter_context(stream.on_host())
            yield

    def _empty_state(self) -> None:
        self.before_step()
        for adam in self.adams:
            for state in adam.optimizer.state.values():
                for value in (state["step"], state["exp_avg"], state["exp_avg_sq"]):
                    value.zero_()
        self._forgets = False

    def _norm(self) -> float:
        """Norm of the gradients of all ranks, each counted once. Megatron's own takes a kernel and a sum per tensor."""
        device = (*self.model.buffers, *self.model.expert_parallel_buffers)[0].grad_data.device
        return math.sqrt(float(sum(_sum_of_squares(one, device) for one in self.adams)))


@contextmanager
def _without_gradients(model: Any) -> Iterator[None]:
    """The gradient buffers have no memory inside; afterwards what is in them is undefined."""
    storages = [buffer.grad_data.untyped_storage() for buffer in (*model.buffers, *model.expert_parallel_buffers)]
    sizes = [storage.nbytes() for storage in storages]
    for storage in storages:
        storage.resize_(0)
    yield
    for storage, size in zip(storages, sizes, strict=True):
        storage.resize_(size)


def _sum_of_squares(adam: Any, device: torch.device) -> Tensor:
    """[1], over the ranks that hold other parts of its gradients."""
    gradients, group = adam.get_main_grads_for_grad_norm(), adam.get_grad_stats_parallel_group()
    squares = torch.zeros(1, device=device)
    if gradients:
        squares = torch.stack(torch._foreach_norm(gradients)).square().sum(dim=0, keepdim=True)
    if group.size() > 1:
        dist.all_reduce(squares, group=group)
    return squares


def _nothing() -> None:
    pass


def wrap(model: torch.nn.Module, use_distributed_optimizer: bool) -> Any:
    """The model with its fp32 gradient buffers, summed over data-parallel ranks."""
    settings = DistributedDataParallelConfig(
        grad_reduce_in_fp32=True, use_distributed_optimizer=use_distributed_optimizer
    )
    wrapped = DistributedDataParallel(config=model.config, ddp_config=settings, module=model)
    if not use_distributed_optimizer:
        for group in (*wrapped.bucket_groups, *wrapped.expert_parallel_bucket_groups):
            if group.data_parallel_group.size() == 1:
                group.finish_grad_sync = _nothing_to_add  # a sum over one rank would have NCCL connect it with itself
    return wrapped


def _nothing_to_add(**_: Any) -> None:
    pass


def learning_rate(config: TrainConfig, step: int, total_steps: int) -> float:
    """Learning rate of optimiser step `step` (from 0): a linear rise over the warm-up steps, then the schedule.

    The last warm-up step has the full rate; the last step of the schedule has the rate just before `min_lr` is reached.
    """
    warmup = config.lr_warmup_steps
    if step < warmup:
        return config.lr * (step + 1) / warmup
    if config.lr_schedule == "constant":
        return config.lr
    progress = min(1.0, (step - warmup) / max(1, (config.lr_decay_steps or total_steps) - warmup))
    share = 1 - progress if config.lr_schedule == "linear" else (1 + math.cos(math.pi * progress)) / 2
    return config.min_lr + (config.lr - config.min_lr) * share


def _build(model: Any, bf16: bool, config: TrainConfig) -> Any:
    settings = OptimizerConfig(
        optimizer="adam",
        lr=config.lr,
        min_lr=config.min_lr,
        weight_decay=config.weight_decay,
        adam_beta1=config.adam_beta1,
        adam_beta2=config.adam_beta2,
        adam_eps=config.adam_eps,
        clip_grad=config.clip_grad,
        bf16=bf16,
        params_dtype=torch.bfloat16 if bf16 else torch.float32,
        use_distributed_optimizer=config.use_distributed_optimizer,
    )
    with shim.tensors_named_as_cuda():
        optimizer = get_megatron_optimizer(settings, [model], use_gloo_process_groups=False)
    # of experts alone there would be an empty one beside theirs, which Megatron's checkpoints do not expect
    optimizer.chained_optimizers = [one for one in optimizer.chained_optimizers if not one.is_stub_optimizer]
    for group in optimizer.param_groups:
        group["fused"] = True  # torch's AdamW in one pass, on a CPU too
        # none for norms and biases: Megatron marks their groups, and leaves it to a scheduler not used here to obey
        group["weight_decay"] = config.weight_decay * group["wd_mult"]
    return optimizer


def _masters(chain: Any, parameters: Iterable[Tensor]) -> list[Tensor]:
    """What Adam works on, where that is not the model's parameters themselves or views of them."""
    own = {parameter.untyped_storage()._cdata for parameter in parameters}
    worked_on = [parameter for group in chain.param_groups for parameter in group["params"]]
    return [parameter for parameter in worked_on if parameter.untyped_storage()._cdata not in own]


def _make_state(adam: Any) -> None:
    """Adam's state before the first step, which Megatron's checkpoints expect to exist: moments in flat buffers."""
    parameters = [parameter for group in adam.param_groups for parameter in group["params"]]
    moments = zip(parameters, flat_like(parameters), flat_like(parameters), strict=True)
    for parameter, exp_avg, exp_avg_sq in moments:
        step = torch.zeros((), dtype=torch.float32, device=parameter.device)
        adam.state[parameter] = {"step": step, "exp_avg": exp_avg, "exp_avg_sq": exp_avg_sq}


def keep_state_flat(adam: Any, flat: Mapping[Any, Mapping[str, Tensor]]) -> None:
    """Put moments that a load has replaced back into the buffers they had before.

    Args:
        flat: the optimiser's state as it was before the load.
    """
    for parameter, before in flat.items():
        state = adam.state[parameter]
        for key in ("exp_avg", "exp_avg_sq"):
            if state[key] is not before[key]:
                before[key].copy_(state[key])
                state[key] = before[key]
