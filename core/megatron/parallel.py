"""Process groups of the trainer ranks: Megatron's model-parallel groups and one gloo group for control traffic."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.tensor_parallel.random import model_parallel_cuda_manual_seed
from torch.distributed.distributed_c10d import _world

from core.config.layout import pipeline_stages
from core.config.sections.placement import PlacementConfig
from core.megatron import shim
from modelcfg.stages import Stages


@dataclass(frozen=True)
class Layout:
    """This rank's place in the groups of ranks.

    Context-parallel ranks have the same samples, and share out the tokens of each row. Expert-parallel ranks are
    tensor-, data- or context-parallel ones, too: each has tokens of its own, and the experts of each layer are shared
    out over `ep_size` of them. An expert is cut over `etp_size` tensor-parallel ranks that follow each other, each of
    which has a part of the same experts. `control` is a gloo group over all trainer ranks, for CPU tensors and objects.
    """

    tp_rank: int
    tp_size: int
    pp_rank: int
    pp_size: int
    dp_rank: int
    dp_size: int
    cp_rank: int
    cp_size: int
    ep_rank: int
    ep_size: int
    etp_rank: int
    etp_size: int
    tp_group: dist.ProcessGroup
    pp_group: dist.ProcessGroup
    ep_group: dist.ProcessGroup
    etp_group: dist.ProcessGroup
    control: dist.ProcessGroup
    stages: Stages

    @property
    def is_last_stage(self) -> bool:
        return self.pp_rank == self.pp_size - 1

    @property
    def speaks_for_replica(self) -> bool:
        """One rank per data-parallel replica: the one whose loss outputs are counted."""
        return self.is_last_stage and self.tp_rank == 0 and self.cp_rank == 0


def initialise(
    placement: PlacementConfig, seed: int, device: str, *, use_distributed_optimizer: bool = False
) -> Layout:
    """Start torch.distributed if that has not happened, and Megatron's groups in it; seed all generators.

    Args:
        device: "cpu" (gloo) or "cuda" (nccl; the current CUDA device is this rank's).
    Raises:
        ValueError: if the sizes of the layout do not divide the trainer ranks.
    Collective: every trainer rank must call; each collective waits up to placement.collective_timeout_s.
    """
    shim.install()
    timeout = timedelta(seconds=placement.collective_timeout_s)
    if not dist.is_initialized():
        if device == "cuda":
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        # control traffic (flags, objects) always goes over gloo, so an idle NCCL watchdog cannot end a long rollout
        dist.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo", timeout=timeout)
    _check_sizes(placement, dist.get_world_size())
    parallel_state.initialize_model_parallel(
        tensor_model_parallel_size=placement.tensor_parallel,
        pipeline_model_parallel_size=placement.pipeline_parallel,
        context_parallel_size=placement.context_parallel,
        expert_model_parallel_size=placement.expert_parallel,
        expert_tensor_parallel_size=placement.expert_tensor_parallel,
        distributed_timeout_minutes=math.ceil(placement.collective_timeout_s / 60),
        create_gloo_process_groups=False,
    )
    torch.manual_seed(seed)
    model_parallel_cuda_manual_seed(seed)
    if device == "cuda":
        _connect(use_distributed_optimizer)
    return _layout(dist.new_group(backend="gloo", timeout=timeout), pipeline_stages(placement))


def shut_down() -> None:
    """End all groups but the default one, so that another layout can be set up in this process. Collective: all ranks.

    Megatron forgets its groups without ending them: each would keep its three threads.
    """
    groups = [group for group in _world.pg_map if group is not dist.group.WORLD]
    parallel_state.destroy_model_parallel()
    for group in groups:
        if group in _world.pg_map:  # Megatron ends some itself
            dist.destroy_process_group(group)


def _connect(use_distributed_optimizer: bool) -> None:
    """Make NCCL's communicators now, while there is memory for them.

    At their first use, after a forward pass, torch's allocator may hold the whole GPU, and NCCL asks the driver itself.
    A communicator takes 0.4 GiB even of one rank, so a group of one gets none: nothing is ever sent in it, unless by
    the distributed optimiser.
    Collective: all trainer ranks.
    """
    data_parallel = parallel_state.get_data_parallel_group(with_context_parallel=True)
    groups = [
        data_parallel,
        parallel_state.get_tensor_model_parallel_group(),
        parallel_state.get_model_parallel_group(),
        parallel_state.get_pipeline_model_parallel_group(),
        parallel_state.get_context_parallel_group(),  # keys and values
    ]
    shared_out = [data_parallel]
    groups += [
        parallel_state.get_expert_model_parallel_group(),  # tokens travel in it
        parallel_state.get_expert_tensor_parallel_group(),  # and meet in it
        parallel_state.get_expert_tensor_and_model_parallel_group(),  # how many there are
    ]
    if parallel_state.get_expert_model_parallel_world_size() > 1:
        shared_out.append(parallel_state.get_expert_data_parallel_group())
        groups.append(shared_out[-1])
        if not use_distributed_optimizer:  # the gradient norm of the experts
            groups.append(parallel_state.get_expert_tensor_model_pipeline_parallel_group())
    if use_distributed_optimizer:
        groups.append(parallel_state.get_intra_distributed_optimizer_instance_group())  # of the gradient norm
    for group in groups:
        if group.size() > 1 or (group in shared_out and use_distributed_optimizer):
            dist.all_reduce(torch.zeros(1, device="cuda"), group=group)
    torch.cuda.synchronize()


def _check_sizes(placement: PlacementConfig, world_size: int) -> None:
    for names in (("tensor", "pipeline", "context"), ("pipeline", "expert", "expert_tensor")):
        product = math.prod(getattr(placement, f"{name}_parallel") for name in names)
        if world_size % product:
            raise ValueError(
                f"{' × '.join(f'{name}_parallel' for name in names)} = {product} does not divide the {world_size} "
                f"trainer ranks: choose sizes whose product divides {world_size}"
            )


def _layout(control: dist.ProcessGroup, stages: Stages) -> Layout:
    return Layout(
        tp_rank=parallel_state.get_tensor_model_parallel_rank(),
        tp_size=parallel_state.get_tensor_model_parallel_world_size(),
        pp_rank=parallel_state.get_pipeline_model_parallel_rank(),
        pp_size=parallel_state.get_pipeline_model_parallel_world_size(),
        dp_rank=parallel_state.get_data_parallel_rank(),
        dp_size=parallel_state.get_data_parallel_world_size(),
        cp_rank=parallel_state.get_context_parallel_rank(),
        cp_size=parallel_state.get_context_parallel_world_size(),
        ep_rank=parallel_state.get_expert_model_parallel_rank(),
        ep_size=parallel_state.get_expert_model_parallel_world_size(),
        etp_rank=parallel_state.get_expert_tensor_parallel_rank(),
        etp_size=parallel_state.get_expert_tensor_parallel_world_size(),
        tp_group=parallel_state.get_tensor_model_parallel_group(),
        pp_group=parallel_state.get_pipeline_model_parallel_group(),
        ep_group=parallel_state.get_expert_model_parallel_group(),
        etp_group=parallel_state.get_expert_tensor_parallel_group(),
        control=control,
        stages=stages,
    )
