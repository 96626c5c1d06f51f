"""The reward server of a node: a slot whose server scores samples."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence

from core.config.layout import Node, rewards_name
from core.config.schema import RunConfig
from core.run_dir.run_directory import RunDirectory
from launchers.node.command_words import words
from launchers.node.seat import Seat
from launchers.node.slot import ServerSlot


class RewardsSlot(ServerSlot):
    """The place of one reward server."""

    def __init__(self, config: RunConfig, directory: RunDirectory, seat: Seat, node: Node) -> None:
        folder = directory.attempt(seat.attempt)
        super().__init__("rewards", rewards_name(seat.node), seat, folder, config.placement.engine_restarts)
        self._directory = directory
        self._num_workers = node.part.num_reward_workers

    def command(self) -> Sequence[str]:
        """`python -m launchers.rank.reward_server`."""
        seat = self.seat
        options = {
            "--run-dir": self._directory.path,
            "--attempt": seat.attempt,
            "--node": seat.node,
            "--host": seat.host,
            "--port": self.port.number,
            "--num-workers": self._num_workers,
        }
        return [sys.executable, "-m", "launchers.rank.reward_server", *words(options)]

    def environment(self) -> Mapping[str, str]:
        """Variables of this process, and the run's key."""
        return {**os.environ, "EBBTIDE_API_KEY": self.seat.key}
