"""One engine of a node: a slot whose server is SGLang."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from core.config.layout import Node, engine_name, running_requests
from core.config.schema import RunConfig
from core.pretrained.locate import locate
from core.pretrained.shape import model_shape
from core.processes.device import num_threads, resolve_device, resolve_dtype
from core.sglang.launch import EngineSpec, command, environment
from launchers.node.gpus import gpus_of_engine
from launchers.node.network import collective_environment
from launchers.node.seat import Seat
from launchers.node.slot import ServerSlot


class EngineSlot(ServerSlot):
    """The place of one engine."""

    def __init__(self, config: RunConfig, folder: Path, seat: Seat, node: Node, index: int) -> None:
        super().__init__("engine", engine_name(seat.node, index), seat, folder, config.placement.engine_restarts)
        self._config = config
        self._node = node
        self._gpus = gpus_of_engine(config, node, index)

    def command(self) -> Sequence[str]:
        """SGLang's server, started by our own entry."""
        return command(self._spec())

    def environment(self) -> Mapping[str, str]:
        """Variables of the engine; none of the trainers' is among them."""
        own = {**dict(self._gpus.environment), **collective_environment(self.seat.host)}
        return environment(self._spec(), {**os.environ, **own})

    @property
    def devices(self) -> tuple[str, ...]:
        """UUIDs of its GPUs."""
        return self._gpus.uuids

    def _spec(self) -> EngineSpec:
        placement = self._config.placement
        device = resolve_device(placement.device)
        model_dir = locate(self._config.model.path)
        return EngineSpec(
            name=self.name,
            model_dir=model_dir,
            device=device,
            dtype=resolve_dtype(self._config.model.dtype, device),
            tensor_parallel=placement.engine_tensor_parallel,
            host=self.seat.host,
            port=self.port.number,
            memory_fraction=placement.engine_memory_fraction,
            max_total_tokens=placement.engine_max_total_tokens,
            max_running_requests=running_requests(self._config, device),
            random_seed=self._config.rollout.seed,
            api_key=self.seat.key,
            deterministic=self._config.rollout.deterministic,
            num_threads=num_threads(self._node.part.num_engines),
            options=placement.engine_options,
            has_experts=model_shape(self._config.model, model_dir).num_experts > 0,
        )
