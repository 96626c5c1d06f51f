"""A trainer rank's side of the engines: who drives which, when they may start, and how weights reach them."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from core.config.layout import colocated_engines, driven_engines, engine_gpus, nodes
from core.config.schema import RunConfig
from core.engines.pairing import check_gpus, serving_ranks
from core.engines.roster import Engine, Engines
from core.megatron.trainer import MegatronTrainer
from core.processes.device import gpu_uuid
from core.processes.node_ranks import NodeRanks
from core.processes.rendezvous import Member, Rendezvous
from core.residency.engines import EngineOwner
from core.run_dir.run_directory import RunDirectory
from core.sglang.generation import prompt_first_tokens
from core.weights.broadcast import WeightBroadcast
from core.weights.check import WeightCheck
from core.weights.files import WeightFiles
from core.weights.ipc import WeightIpc
from core.weights.sync import Transport, WeightSync
from modelcfg import ModelShape, active_parameters


@dataclass(frozen=True)
class Place:
    """Where a trainer rank is.

    Attributes:
        node, host: the node's number in the run, and its address.
        drives: whether this is the rank that drives the node's engines.
        device: of the rank: "cuda" or "cpu".
    """

    rank: int
    node: int
    host: str
    drives: bool
    device: str


class RankEngines:
    """What one rank does with engines. Made by every rank; most have none to drive."""

    def __init__(self, config: RunConfig, place: Place, rendezvous: Rendezvous, shape: ModelShape) -> None:
        self._config = config
        self._place = place
        self._rendezvous = rendezvous
        self._colocated = colocated_engines(config, place.node)
        self.driven = Engines(
            rendezvous,
            driven_engines(config, place.node) if place.drives else [],
            vocab_size=shape.vocab_size,
            api_key=os.environ["EBBTIDE_API_KEY"],
            start_s=config.placement.start_timeout_s,
            request_s=config.rollout.request_timeout_s,
            prompt_first_tokens=prompt_first_tokens(place.device, active_parameters(shape)),
        )

    def publish_rank(self) -> None:
        """Tell the others where this rank is."""
        uuid = gpu_uuid(self._place.device)
        member = Member("trainer", str(self._place.rank), self._place.node, self._place.host, os.getpid())
        self._rendezvous.publish(replace(member, devices=(uuid,) if uuid is not None else ()))

    def start(self) -> None:
        """Wait for the engines; on GPUs see that each is where it should be."""
        self.driven.start()
        if self._place.drives:
            here = nodes(self._config)[self._place.node].engines
            check_gpus(
                [engine.member for engine in self.driven.alive() if engine.name in here],
                self._trainers_here,
                colocated=self._config.placement.engines == "colocated",
            )

    def owner(self) -> EngineOwner:
        """Engines of this node share its devices; those of other nodes keep what they have."""
        return EngineOwner(self.driven, self._colocated)

    def weight_sync(self, trainer: MegatronTrainer, directory: RunDirectory, model_dir: Path) -> WeightSync:
        """Collective: the trainer ranks of a node meet."""
        files = WeightFiles(self.driven, directory.path / "sync", model_dir)
        interval = self._config.placement.check_sync
        check = WeightCheck(self.driven, files, interval) if interval else None
        return WeightSync(trainer, self.driven, self._transports(files), check)

    def _transports(self, files: WeightFiles) -> tuple[Transport, ...]:
        """The ways to the engines that this rank drives; the same on every rank, as sending is collective."""
        if self._config.placement.weight_sync == "files":
            return self._weight_ipc(), files
        backend = "nccl" if self._place.device == "cuda" else "gloo"
        broadcast = WeightBroadcast(self.driven, self._rendezvous.address, backend, f"rank{self._place.rank}")
        return self._weight_ipc(), broadcast

    def _weight_ipc(self) -> WeightIpc:
        placement, node = self._config.placement, nodes(self._config)[self._place.node]

        def serving(engine: Engine) -> tuple[int, ...]:
            places = engine_gpus(self._config, node, self._colocated.index(engine.name))
            return serving_ranks(engine.member, places, self._trainers_here)

        per_node = placement.trainers_per_node if self._colocated else 1
        ranks = NodeRanks.meet(per_node, self._rendezvous.secret, placement.collective_timeout_s)
        return WeightIpc(self.driven, self._colocated, ranks, serving)

    @cached_property
    def _trainers_here(self) -> list[Member]:
        """The ranks of the node that this one drives."""
        first, placement = self._place.rank, self._config.placement
        ranks = [str(rank) for rank in range(first, first + placement.trainers_per_node)]
        return self._rendezvous.wait("trainer", ranks, placement.start_timeout_s)
