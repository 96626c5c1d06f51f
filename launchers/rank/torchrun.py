"""The torchrun elastic agent of one node: starts the trainer ranks and says which one failed first.

`python -m launchers.rank.torchrun --store HOST:PORT --nnodes 2 --node 0 --nproc 4 --report FILE -- --run-dir ...`
Everything behind `--` goes to `launchers.rank.trainer`. The nodes meet in the run's own store, which is up and
published before any of this starts, so torchrun opens no port and negotiates nothing. No restarts: a dead rank ends the
attempt.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from datetime import timedelta
from pathlib import Path

from torch.distributed import PrefixStore, TCPStore
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.elastic.rendezvous import (
    RendezvousHandler,
    RendezvousInfo,
    RendezvousParameters,
    RendezvousStoreInfo,
    rendezvous_handler_registry,
)
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from core.processes.rendezvous import Address

BACKEND = "ebbtide"
STORE_TIMEOUT_S = 600.0


class RunStore(RendezvousHandler):
    """torchrun's rendezvous over a store that exists already, with ranks that are known already."""

    def __init__(self, address: Address, node: int, num_nodes: int, run_id: str) -> None:
        self._address = address
        self._node = node
        self._num_nodes = num_nodes
        self._run_id = run_id

    def get_backend(self) -> str:
        """The name it is registered under."""
        return BACKEND

    @property
    def use_agent_store(self) -> bool:
        """The ranks make their process groups in the same store."""
        return True

    def next_rendezvous(self) -> RendezvousInfo:
        """The store and this node's place; nothing to wait for."""
        host, port = self._address.host, self._address.port
        store = TCPStore(
            host, port, is_master=False, wait_for_workers=False, timeout=timedelta(seconds=STORE_TIMEOUT_S)
        )
        return RendezvousInfo(
            PrefixStore(self._run_id, store), self._node, self._num_nodes, RendezvousStoreInfo(host, port)
        )

    def is_closed(self) -> bool:
        """Never: one start, no further rounds."""
        return False

    def set_closed(self) -> None:
        """Do nothing: there is nothing to close."""

    def num_nodes_waiting(self) -> int:
        """Nobody joins later."""
        return 0

    def get_run_id(self) -> str:
        """The attempt's name."""
        return self._run_id

    def shutdown(self) -> bool:
        """The store is the node agent's."""
        return True


def main() -> None:
    """Start the ranks, wait for them; on failure write the report and exit 1."""
    options, trainer_arguments = _parse(sys.argv[1:])
    os.environ["EBBTIDE_TORCHRUN_PID"] = str(os.getpid())  # what the ranks expect as their parent
    rendezvous_handler_registry.register(BACKEND, _handler)
    config = LaunchConfig(
        min_nodes=options.nnodes,
        max_nodes=options.nnodes,
        nproc_per_node=options.nproc,
        run_id="torchrun",
        rdzv_backend=BACKEND,
        rdzv_endpoint=options.store,
        rdzv_configs={"node": options.node},
        max_restarts=0,
        monitor_interval=0.1,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "launchers.rank.trainer", *trainer_arguments)
    except ChildFailedError as error:
        report = [
            {"rank": rank, "pid": failure.pid, "exit_code": failure.exitcode, "time": failure.timestamp}
            for rank, failure in error.failures.items()
        ]
        options.report.write_text(json.dumps(report))
        sys.exit(1)


def _handler(parameters: RendezvousParameters) -> RendezvousHandler:
    address = Address.parse(parameters.endpoint)
    return RunStore(address, parameters.config["node"], parameters.max_nodes, parameters.run_id)


def _parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    split = arguments.index("--")
    parser = argparse.ArgumentParser(prog="launchers.rank.torchrun", description=__doc__)
    parser.add_argument("--store", required=True, help="host:port of the run's store")
    parser.add_argument("--nnodes", type=int, required=True)
    parser.add_argument("--node", type=int, required=True, help="this node's number")
    parser.add_argument("--nproc", type=int, required=True, help="trainer ranks on this node")
    parser.add_argument("--report", type=Path, required=True, help="where the failed ranks are written")
    return parser.parse_args(arguments[:split]), arguments[split + 1 :]


if __name__ == "__main__":
    main()
