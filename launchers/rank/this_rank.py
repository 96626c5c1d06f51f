"""What a trainer rank knows before it meets the others: its seat, the run file, the model's shape and tokenizer."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

from core.config import load_run_file
from core.config.schema import RunConfig
from core.planner import Device
from core.pretrained.locate import locate
from core.pretrained.shape import model_shape
from core.pretrained.tokenizer import Tokenizer, load_tokenizer
from core.processes.device import resolve_device
from core.processes.rendezvous import Address, Rendezvous
from core.residency.memory import total_memory
from core.run_dir.progress import Progress
from core.run_dir.run_directory import RunDirectory
from modelcfg import ModelShape


@dataclass(frozen=True)
class ThisRank:
    """One trainer rank. Nothing here is collective.

    Attributes:
        global_rank, num_ranks: torchrun's.
        node, host: the node's number in the run, and its address.
        drives: whether this rank drives the node's engines: the first of each node does.
        device: "cuda" or "cpu".
        ends_at: when the allocation ends, in seconds of the epoch; None: never.
    """

    global_rank: int
    num_ranks: int
    node: int
    host: str
    drives: bool
    device: str
    ends_at: float | None
    key: str
    config: RunConfig
    directory: RunDirectory
    rendezvous: Rendezvous
    progress: Progress
    model_dir: Path
    shape: ModelShape
    tokenizer: Tokenizer

    @classmethod
    def of(cls, seat: argparse.Namespace) -> ThisRank:
        """The rank that this process is.

        Args:
            seat: the options of `launchers.rank.trainer`: run_dir, attempt, node, store, host, ends_at.
        """
        global_rank, key = int(os.environ["RANK"]), os.environ["EBBTIDE_API_KEY"]
        directory = RunDirectory(seat.run_dir)
        config = load_run_file(directory.run_file)
        model_dir = locate(config.model.path)
        return cls(
            global_rank=global_rank,
            num_ranks=int(os.environ["WORLD_SIZE"]),
            node=seat.node,
            host=seat.host,
            drives=int(os.environ["LOCAL_RANK"]) == 0,
            device=resolve_device(config.placement.device),
            ends_at=seat.ends_at,
            key=key,
            config=config,
            directory=directory,
            rendezvous=Rendezvous(Address.parse(seat.store), seat.attempt, key),
            progress=Progress(directory.progress, active=global_rank == 0),
            model_dir=model_dir,
            shape=model_shape(config.model, model_dir),
            tokenizer=load_tokenizer(model_dir),
        )

    @property
    def first(self) -> bool:
        """Whether this is rank 0, which decides, logs and writes for all."""
        return self.global_rank == 0

    @property
    def stop_token_ids(self) -> tuple[int, ...]:
        """What ends a response: the tokenizer's own end tokens, and the run file's."""
        return (*self.tokenizer.eos_token_ids, *self.config.rollout.stop_token_ids)

    def memory(self) -> Device:
        """This rank's device, and what it has."""
        return Device("cuda" if self.device == "cuda" else "cpu", total_memory(self.device))
