"""Trainer state on disk in Megatron's distributed format, which any layout can load.

Where adapters are trained, of the model they alone: the base is the model's files. Where some of the model's own
parameters are, all of it, but each layer's tensors by themselves: the optimiser's state may be of some layers only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from megatron.core import dist_checkpointing, parallel_state
from megatron.core.dist_checkpointing.mapping import LocalNonpersistentObject, ShardedBase, ShardedObject, ShardedTensor
from megatron.core.tensor_parallel.random import get_cuda_rng_tracker
from megatron.core.transformer.mlp import apply_swiglu_sharded_factory
from torch import Tensor, nn

from core.megatron.parallel import Layout
from core.megatron.state.adapters import is_adapter
from core.megatron.state.optimizer import Optimizer, keep_state_flat
from core.megatron.state.staged import Write, stage

_LOADED = object()  # where a tensor of the checkpoint belongs


def save(directory: Path, optimizer: Optimizer, layout: Layout, *, apart: bool) -> Write:
    """Stage model, Adam state, number of steps and RNG states for an empty or new directory.

    Args:
        apart: what is to be written is copied to the host now, so that the next step may change it.
    Returns:
        the writing.
    Collective: all trainer ranks.
    """
    with optimizer.state_at_hand():
        state = _sharded_state(optimizer, layout, is_loading=False)
        _count_on_host(state["optimizer"])
        state["rng"] = _rng_object(layout, _rng_states())
        return _stage(directory, state, layout, _changing(optimizer) if apart else None)


def save_weights(directory: Path, model: nn.Module, layout: Layout, age: int, *, apart: bool) -> Write:
    """Stage a model alone, and a number with it. Args, Returns and Collective: as of `save`."""
    state = {"model": _sharded_model(model), "age": age}
    return _stage(directory, state, layout, _tensors(model) if apart else None)


def load_weights(directory: Path, model: nn.Module) -> int:
    """Take up what `save_weights` wrote, and give the number back. Collective: all trainer ranks."""
    loaded = dist_checkpointing.load({"model": _sharded_model(model)}, str(directory))
    model.load_state_dict(loaded["model"])
    return int(dist_checkpointing.load_common_state_dict(str(directory))["age"])


def load(directory: Path, optimizer: Optimizer, layout: Layout) -> None:
    """Take up what `save` wrote. RNG states are kept as they are if the layout is another one.

    Collective: all trainer ranks.
    """
    common = dist_checkpointing.load_common_state_dict(str(directory))
    same_layout = tuple(common["layout"]) == _layout_key(layout)
    num_steps = int(common["num_steps"])
    optimizer.set_num_steps(max(1, num_steps))  # Megatron leaves a count of 0 out, and then does not take the state in
    with optimizer.state_at_hand():
        state = _sharded_state(optimizer, layout, is_loading=True)
        if same_layout:
            state["rng"] = _rng_object(layout, None)
        settings = _settings(state["optimizer"])
        loaded = dist_checkpointing.load(state, str(directory))
        module = optimizer.model.module
        missing, unknown = module.load_state_dict(loaded["model"], strict=not _has_adapters(module))
        assert not unknown, unknown
        assert not [name for name in missing if is_adapter(name)], missing
        before = [{key: dict(values) for key, values in one.optimizer.state.items()} for one in optimizer.adams]
        with _torch_adams_can_load(optimizer):
            optimizer.chain.load_state_dict(_with_settings(loaded["optimizer"], settings))
        for one, moments in zip(optimizer.adams, before, strict=True):
            keep_state_flat(one.optimizer, moments)
    optimizer.set_num_steps(num_steps)
    if same_layout:
        _set_rng_states(loaded["rng"])


def _stage(directory: Path, state: dict[str, Any], layout: Layout, own: Iterable[Tensor] | None) -> Write:
    if dist.get_rank() == 0:
        directory.mkdir(parents=True, exist_ok=True)
    dist.barrier(layout.control)
    return stage(directory, state, _content_metadata(), own)


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    yield from model.parameters()
    yield from model.buffers()


def _changing(optimizer: Optimizer) -> Iterator[Tensor]:
    """What an optimiser step changes, where it lies now."""
    yield from _tensors(optimizer.model.module)
    for group in optimizer.chain.param_groups:
        yield from group["params"]
    for adam in optimizer.adams:
        for values in adam.optimizer.state.values():
            yield from (value for value in values.values() if isinstance(value, Tensor))


def _sharded_metadata() -> dict[str, Any]:
    replicas = parallel_state.get_data_parallel_group(with_context_parallel=True)
    return {**_content_metadata(), "dp_cp_group": replicas}


def _sharded_model(model: nn.Module) -> dict[str, Any]:
    megatron: Any = model  # torch types what a module has beyond its own as a tensor
    apart = {} if megatron.options.choice.everything else {"non_homogeneous_layers": True}
    found: dict[str, Any] = megatron.sharded_state_dict(metadata=_sharded_metadata() | apart)
    return found


def _sharded_state(optimizer: Optimizer, layout: Layout, is_loading: bool) -> dict[str, Any]:
    metadata = _sharded_metadata()
    model = _sharded_model(optimizer.model.module)
    if _has_adapters(optimizer.model.module):
        parameters = dict(optimizer.model.module.named_parameters())
        model = {name: _cut_as(parameters[name], value) for name, value in model.items() if is_adapter(name)}
    with _torch_adams_can_load(optimizer):
        adam = optimizer.chain.sharded_state_dict(model, is_loading=is_loading, metadata=metadata)
    return {"model": model, "optimizer": adam, "num_steps": optimizer.num_steps, "layout": _layout_key(layout)}


def _cut_as(parameter: Any, value: ShardedTensor) -> ShardedBase:
    """A parameter's tensor in the files, of which tensor-parallel ranks hold parts, or parts of both halves: Megatron's
    layer, which describes what is beside it as well, takes it to be whole on each.
    """
    if not getattr(parameter, "tensor_model_parallel", False):
        return value
    axis, rank = value.prepend_axis_num + parameter.partition_dim, parallel_state.get_tensor_model_parallel_rank()
    size = parallel_state.get_tensor_model_parallel_world_size()

    def along(numbers: tuple[int, ...], number: int) -> tuple[int, ...]:
        return (*numbers[:axis], number, *numbers[axis + 1 :])

    width = value.global_shape[axis]
    part = replace(
        value,
        global_shape=along(value.global_shape, size * width),
        global_offset=along(value.global_offset, rank * width),
        axis_fragmentations=along(value.axis_fragmentations, size),
        replica_id=(0, 0, value.replica_id[2]),
    )
    if parameter.partition_stride == 1:
        return part
    places = zip(range(part.prepend_axis_num), part.global_offset, part.axis_fragmentations, strict=False)
    halves: ShardedBase = apply_swiglu_sharded_factory(part, tuple(places))
    return halves


def _has_adapters(module: nn.Module) -> bool:
    return any(is_adapter(name) for name, _ in module.named_parameters())


def _count_on_host(adam: dict[Any, Any]) -> None:
    """Megatron sends what all ranks have in common from rank 0 to the others, and compares. The number of Adam's steps,
    a tensor on rank 0's GPU, would arrive there: each rank would take memory of that GPU, and find a difference.
    """
    for key, value in adam.items():
        if key == "common_step":
            adam[key] = value.cpu()
        elif isinstance(value, dict):
            _count_on_host(value)


def _settings(state: Any) -> Any:
    """What of an optimiser's state is no tensor, in its place; `_LOADED` stands for the tensors."""
    if isinstance(state, dict):
        return {key: _settings(value) for key, value in state.items()}
    if isinstance(state, list):
        return [_settings(value) for value in state]
    if isinstance(state, LocalNonpersistentObject):
        return state.unwrap()
    return _LOADED if isinstance(state, ShardedBase) else state


def _with_settings(loaded: Any, own: Any) -> Any:
    """Loaded tensors, and nothing else of the file: with expert parallelism there are two Adams instead of one, so that
    settings may lie elsewhere there. All of them are the run file's, but the number of steps, which is kept apart.
    """
    if isinstance(own, dict):
        return {key: _with_settings(loaded.get(key) if loaded else None, value) for key, value in own.items()}
    if isinstance(own, list):
        return [_with_settings(loaded[i] if loaded else None, value) for i, value in enumerate(own)]
    return loaded if own is _LOADED else own


def _content_metadata() -> dict[str, Any]:
    return {"distrib_optim_sharding_type": "fully_reshardable", "chained_optim_avoid_prefix": True}


def _layout_key(layout: Layout) -> tuple[int, int, int]:
    return layout.tp_size, layout.pp_size, layout.dp_size * layout.cp_size


@contextmanager
def _torch_adams_can_load(optimizer: Optimizer) -> Iterator[None]:
    with ExitStack() as stack:
        for adam in optimizer.adams:
            stack.enter_context(_torch_adam_can_load(adam))
        yield


@contextmanager
def _torch_adam_can_load(adam: Any) -> Iterator[None]:
    """Mends megatron-core 0.16's distributed optimiser where it runs on torch's AdamW (no transformer engine).

    While it takes in a parameter's state it asks for a "step" that it was not given; afterwards all parameters share
    one step tensor, which then advances once per parameter and step. (That no state exists before the first step,
    which it does not expect either, is settled when the optimiser is built.)
    """
    inner = adam.optimizer
    original = getattr(adam, "_set_main_param_and_optimizer_states", None)
    if original is None:
        yield
        return

    def with_step(model_param: Tensor, tensors: dict[str, Tensor]) -> None:
        group, order = adam.model_param_group_index_map[model_param]
        known = inner.state[inner.param_groups[group]["params"][order]]
        original(model_param, {"step": known["step"], **tensors})

    adam._set_main_param_and_optimizer_states = with_step
    try:
        yield
    finally:
        del adam._set_main_param_and_optimizer_states
        for state in inner.state.values():
            state["step"] = state["step"].clone()


def _rng_states() -> dict[str, Any]:
    states = {"cpu": torch.get_rng_state(), "tracker": get_cuda_rng_tracker().get_states()}
    return states | ({"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {})


def _set_rng_states(states: dict[str, Any]) -> None:
    torch.set_rng_state(states["cpu"])
    get_cuda_rng_tracker().set_states(states["tracker"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


def _rng_object(layout: Layout, states: dict[str, Any] | None) -> Any:
    """One object per rank."""
    place = layout.tp_rank, layout.pp_rank, layout.dp_rank * layout.cp_size + layout.cp_rank
    return ShardedObject("rng", states, _layout_key(layout), place, replica_id=0)
