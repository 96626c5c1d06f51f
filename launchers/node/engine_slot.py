"""One engine of a node, or its share of one: a slot whose server is SGLang."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path

from common.files import write_atomically
from common.mistake import Wrong
from core.checks.engine_weights import KEY, not_computed
from core.config.layout import Node, Share, running_requests
from core.config.schema import RunConfig
from core.pretrained.locate import locate
from core.pretrained.packing import Packing
from core.pretrained.quantised import scheme_of
from core.pretrained.shape import model_shape
from core.processes.device import num_threads, resolve_device, resolve_dtype
from core.run_dir.attempt_folder import AttemptFolder
from core.sglang.asked_config import not_said
from core.sglang.back_ends import BackEnds, choose_back_ends, installed_kernels
from core.sglang.engine_log import first_exception
from core.sglang.launch import EngineSpec, OverNodes, command, environment
from launchers.node.arms import Arms, ArmSlot
from launchers.node.gpus import capability_of_engine, gpus_of_engine
from launchers.node.network import collective_environment
from launchers.node.pulse import Pulse
from launchers.node.seat import Seat
from launchers.node.slot import ServerSlot
from modelcfg import ModelShape
from modelcfg.families import families

log = logging.getLogger("agent")


class EngineSlot(ServerSlot):
    """The place of one engine."""

    def __init__(self, config: RunConfig, folder: Path, seat: Seat, node: Node, index: int) -> None:
        self.share, restarts = node.shares[index], config.placement.engine_restarts
        self.arms = _arms(node, self.share, seat)
        super().__init__("engine", self.share.name, seat, folder, restarts, self.arms)
        self._config = config
        self._node = node
        self._gpus = gpus_of_engine(config, node, index)

    def start(self, pulse: Pulse) -> None:
        """Start the next incarnation, and say what it computes with."""
        if self._device == "cuda":
            self._say_back_ends()
        super().start(pulse)

    def command(self) -> Sequence[str]:
        """SGLang's server, started by our own entry."""
        return command(self._spec())

    def environment(self) -> Mapping[str, str]:
        """Variables of the engine; none of the trainers' is among them."""
        own = {**dict(self._gpus.environment), **collective_environment(self.seat.host)}
        return environment(self._spec(), {**os.environ, **own})

    def last_error(self) -> str:
        """The exception of the process that took all others with it."""
        return first_exception(self.log_path)

    @property
    def devices(self) -> tuple[str, ...]:
        """UUIDs of its GPUs."""
        return self._gpus.uuids

    @property
    def meeting(self) -> str:
        """Place where the programs of an engine over several nodes meet, host:port; empty: it is on this node alone."""
        return self.arms.meeting if self.arms is not None else ""

    @property
    def _device(self) -> str:
        return resolve_device(self._config.placement.device)

    @property
    def _dtype(self) -> str:
        return resolve_dtype(self._config.model.dtype, self._device)

    @cached_property
    def _model_dir(self) -> Path:
        return locate(self._config.model.path)

    @cached_property
    def _shape(self) -> ModelShape:
        return model_shape(self._config.model, self._model_dir)

    @cached_property
    def _back_ends(self) -> BackEnds:
        """What the node allows; asked once, for restarts must not differ."""
        if self._device != "cuda":
            return BackEnds()
        return choose_back_ends(
            self._shape,
            self._dtype,
            deterministic=self._config.rollout.deterministic,
            options=self._config.placement.engine_options,
            capability=capability_of_engine(self._gpus),
            kernels=installed_kernels(),
        )

    @cached_property
    def _packing(self) -> Packing | None:
        """What the engine has in few bits; before, of some clusters it is not known what GPUs they give."""
        packing = Packing.of_engines(self._config.placement, self._shape)
        if packing is None:
            return None
        if wrong := not_computed(packing.way, self._device, capability_of_engine(self._gpus)):
            raise Wrong(f"{KEY} {wrong.found}", wrong.wanted, wrong.remedy)
        return packing

    def _say_back_ends(self) -> None:
        """Tell the agent's log and, the same for all engines of a node, `ebbtide status`."""
        log.info("%s=%s computes with %s", self.role, self.name, self._back_ends)
        with suppress(OSError):  # a disk without room says so elsewhere
            write_atomically(AttemptFolder(self.folder).engines_note(self.seat.node), str(self._back_ends))

    def _spec(self) -> EngineSpec:
        placement, device = self._config.placement, self._device
        return EngineSpec(
            name=self.name,
            model_dir=self._model_dir,
            device=device,
            dtype=self._dtype,
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
            has_experts=self._shape.num_experts > 0,
            has_windows=self._shape.window is not None,
            back_ends=self._back_ends,
            config=not_said(families()[self._shape.architecture].engine_config(self._shape), self._model_dir),
            quantised=scheme_of(self._model_dir) is not None,
            packing=self._packing,
            returns_routing=self._config.algorithm.routing_replay == "engine",
            over_nodes=self._over_nodes(),
        )

    def _over_nodes(self) -> OverNodes | None:
        return OverNodes(self._node.part.engine_nodes, self.share.rank, self.meeting) if self.meeting else None


class EngineArm(ArmSlot, EngineSlot):
    """The place of an engine's share on a node that is not its first."""

    @property
    def meeting(self) -> str:
        """The place that the first node's agent named."""
        return self.told.meeting


def engine_slots(config: RunConfig, folder: Path, seat: Seat, node: Node) -> list[ServerSlot]:
    """The places of what a node has of engines."""
    kinds = [EngineArm if share.rank else EngineSlot for share in node.shares]
    return [kind(config, folder, seat, node, index) for index, kind in enumerate(kinds)]


def _arms(node: Node, share: Share, seat: Seat) -> Arms | None:
    """The arms of an engine, on its first node."""
    several = node.part.engine_nodes > 1 and share.rank == 0
    return Arms(share.engine, node.part.engine_nodes, seat) if several else None
