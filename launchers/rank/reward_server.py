"""The reward server of a node: a reward pool that the trainers of other nodes use.

    python -m launchers.rank.reward_server --run-dir RUN --attempt 1 --node 2 --host 10.0.0.3 --port 20005 [...]

Started by the node agent, with the run's key in EBBTIDE_API_KEY; without it nothing is answered. The port is bound at
once and listened on when all scoring processes are ready. Exit code 1: it could not start, its last line of output says
why; 143: it was asked to stop. SIGUSR1 writes the stacks of all threads to its output.
"""

from __future__ import annotations

import argparse
import faulthandler
import logging
import os
import signal
import socket
import sys
from collections.abc import Mapping
from types import FrameType

import uvicorn

from core.config import load_run_file
from core.config.sections.reward import RewardConfig
from core.config.set_rewards import own_rewards
from core.processes.held_port import take
from core.processes.user_process import WorkerStartError
from core.reward import RewardPool
from core.reward.server import reward_app
from core.run_dir.run_directory import RunDirectory
from launchers.node.log_setup import start_logging
from launchers.rank.role_arguments import role_parser

STOPPED = 128 + signal.SIGTERM
GOODBYE_S = 1  # for answers that are being sent

log = logging.getLogger("rewards")


def serve(config: RewardConfig, of_sets: Mapping[str, RewardConfig], listener: socket.socket, key: str) -> None:
    """Score until SIGTERM.

    Args:
        of_sets: by name, the rewards of evaluation sets that are scored otherwise.
        listener: bound, not listening.
    Raises:
        WorkerStartError: the reward section is unusable, or a process does not come up.
    """
    with RewardPool(config, of_sets) as pool:
        settings = uvicorn.Config(
            reward_app(pool, key),
            log_config=None,
            log_level="warning",
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=GOODBYE_S,
        )
        log.info("rewards=%s workers=%d listening on %s:%d", config.type, config.num_workers, *listener.getsockname())
        uvicorn.Server(settings).run(sockets=[listener])


def main() -> None:
    """Serve one node's part of an attempt."""
    options = _parse()
    faulthandler.register(signal.SIGUSR1)
    signal.signal(signal.SIGTERM, _stop)  # uvicorn hands the signal on when it has closed
    run = load_run_file(RunDirectory(options.run_dir).run_file)
    start_logging(run.logging)
    config = run.reward
    if options.num_workers is not None:
        config = config.model_copy(update={"num_workers": options.num_workers})
    try:
        serve(config, own_rewards(run), take(options.host, options.port), os.environ["EBBTIDE_API_KEY"])
    except (WorkerStartError, OSError) as error:
        log.error("the reward server of node %d cannot start: %s", options.node, error)
        sys.exit(1)


def _stop(number: int, frame: FrameType | None) -> None:
    del number, frame
    sys.exit(STOPPED)


def _parse() -> argparse.Namespace:
    parser = role_parser("launchers.rank.reward_server", __doc__)
    parser.add_argument("--port", type=int, required=True, help="reserved by the node agent")
    parser.add_argument("--num-workers", type=int, help="scoring processes; left out: as in the run file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
