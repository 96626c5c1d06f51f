"""A trainer rank's side of the engines: who drives which, when they may start, and how weights reach them."""

from __future__ import annotations

import os
from dataclasses import replace

from core.config.layout import (
    arm_name,
    colocated_engines,
    driven_engines,
    engine_gpus,
    engine_nodes,
    nodes,
    serving_together,
)
from core.engines.pairing import check_gpus, serving_ranks
from core.engines.roster import Engine, Engines
from core.megatron.trainer import MegatronTrainer
from core.pretrained.packing import Packing
from core.processes.device import gpu_uuid
from core.processes.node_ranks import NodeRanks
from core.processes.rendezvous import Member
from core.residency.engines import EngineOwner
from core.residency.machine import Residency
from core.sglang.generation import prompt_first_tokens
from core.weights.broadcast import WeightBroadcast
from core.weights.check import WeightCheck
from core.weights.files import WeightFiles
from core.weights.ipc import WeightIpc
from core.weights.quantised import Quantised
from core.weights.sync import Transport, WeightSync
from launchers.rank.this_rank import ThisRank
from modelcfg import active_parameters


class RankEngines:
    """What one rank does with engines. Made by every rank; most have none to drive."""

    def __init__(self, rank: ThisRank) -> None:
        self._rank = rank
        self._config = rank.config
        self._colocated = colocated_engines(rank.config, rank.node)
        self._num_nodes = engine_nodes(rank.config.placement)
        self._trainers_here: list[Member] = []  # the ranks of the node that this one drives, or of its engines' nodes
        self.driven = Engines(
            rank.rendezvous,
            driven_engines(rank.config, rank.node) if rank.drives else [],
            vocab_size=rank.shape.vocab_size,
            api_key=rank.key,
            start_s=rank.config.placement.start_timeout_s,
            request_s=rank.config.rollout.request_timeout_s,
            prompt_first_tokens=prompt_first_tokens(rank.device, active_parameters(rank.shape)),
        )

    def meet(self) -> None:
        """Tell the others where this rank is; if it drives a node, wait for the node's ranks.

        Raises:
            RendezvousTimeout: naming those that did not appear in time.
        """
        rank, placement = self._rank, self._config.placement
        uuid = gpu_uuid(rank.device)
        member = Member("trainer", str(rank.global_rank), rank.node, rank.host, os.getpid())
        rank.rendezvous.publish(replace(member, devices=(uuid,) if uuid is not None else ()))
        if rank.drives:
            num_nodes = self._num_nodes if nodes(self._config)[rank.node].engines else 1
            here = range(rank.global_rank, rank.global_rank + placement.trainers_per_node * num_nodes)
            names = [str(one) for one in here]
            self._trainers_here = rank.rendezvous.wait("trainer", names, placement.start_timeout_s)

    def start(self) -> None:
        """Wait for the engines; on GPUs see that each is where it should be."""
        self.driven.start()
        if self._rank.drives:
            here = nodes(self._config)[self._rank.node].engines
            check_gpus(
                [one for engine in self.driven.alive() if engine.name in here for one in self._members(engine)],
                self._trainers_here,
                colocated=self._config.placement.engines == "colocated",
            )

    def owner(self) -> EngineOwner:
        """Engines of this node share its devices; those of other nodes keep what they have."""
        return EngineOwner(self.driven, self._colocated)

    def weight_sync(self, trainer: MegatronTrainer, residency: Residency | None) -> WeightSync:
        """Make the sync from the trainer to these engines.

        Args:
            residency: where trainer and engines take turns; else None.
        Collective: the trainer ranks of a node meet.
        """
        packing = Packing.of_engines(self._config.placement, self._rank.shape)
        files = WeightFiles(self.driven, self._rank.directory.sync, self._rank.model_dir, packing)
        interval = self._config.placement.check_sync
        check = WeightCheck(self.driven, files, interval) if interval else None
        source = trainer if packing is None else Quantised(trainer, packing)
        return WeightSync(source, self.driven, self._transports(files), check, residency)

    def _transports(self, files: WeightFiles) -> tuple[Transport, ...]:
        """The ways to the engines that this rank drives; the same on every rank, as sending is collective."""
        if self._config.placement.weight_sync == "files":
            return self._weight_ipc(), files
        backend = "nccl" if self._rank.device == "cuda" else "gloo"
        name = f"rank{self._rank.global_rank}"
        broadcast = WeightBroadcast(self.driven, self._rank.rendezvous.address, backend, name)
        return self._weight_ipc(), broadcast

    def _weight_ipc(self) -> WeightIpc:
        placement = self._config.placement
        together = serving_together(self._config)
        ranks = NodeRanks.meet(together, self._rank.rendezvous.secret, placement.collective_timeout_s)
        return WeightIpc(self.driven, self._colocated, ranks, self._serving)

    def _serving(self, engine: Engine) -> list[int]:
        """Which of the ranks that serve together has each of a colocated engine's GPUs, node by node."""
        per_node, node = self._config.placement.trainers_per_node, nodes(self._config)[self._rank.node]
        places = engine_gpus(self._config, node, self._colocated.index(engine.name))
        found: list[int] = []
        for number, member in enumerate(self._members(engine)):
            first = number * per_node
            here = self._trainers_here[first : first + per_node]
            found += [first + local for local in serving_ranks(member, places, here)]
        return found

    def _members(self, engine: Engine) -> list[Member]:
        """What the programs of an engine say of themselves, in the order of its nodes."""
        arms = [arm_name(engine.name, rank) for rank in range(1, self._num_nodes)]
        return [engine.member, *self._rank.rendezvous.wait("engine", arms, self._config.placement.start_timeout_s)]
