"""The torchrun elastic agent of one node: starts the trainer ranks and says which one failed first.

`python -m launchers.torchrun --nnodes 1 --nproc 2 --endpoint 127.0.0.1:0 --report FILE -- --run-dir ... `
Everything behind `--` goes to `launchers.trainer`. No restarts here: a dead rank ends the attempt.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch


def main() -> None:
    """Start the ranks, wait for them; on failure write the report and exit 1."""
    options, trainer_arguments = _parse(sys.argv[1:])
    os.environ["EBBTIDE_TORCHRUN_PID"] = str(os.getpid())  # what the ranks expect as their parent
    config = LaunchConfig(
        min_nodes=options.nnodes,
        max_nodes=options.nnodes,
        nproc_per_node=options.nproc,
        run_id=options.run_id,
        rdzv_backend="c10d",
        rdzv_endpoint=options.endpoint,
        rdzv_configs={"join_timeout": options.join_timeout_s},
        max_restarts=0,
        monitor_interval=0.1,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "launchers.trainer", *trainer_arguments)
    except ChildFailedError as error:
        report = [
            {"rank": rank, "pid": failure.pid, "exit_code": failure.exitcode, "time": failure.timestamp}
            for rank, failure in error.failures.items()
        ]
        options.report.write_text(json.dumps(report))
        sys.exit(1)


def _parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    split = arguments.index("--")
    parser = argparse.ArgumentParser(prog="launchers.torchrun", description=__doc__)
    parser.add_argument("--nnodes", type=int, required=True)
    parser.add_argument("--nproc", type=int, required=True, help="trainer ranks on this node")
    parser.add_argument("--endpoint", required=True, help="host:port of torchrun's own rendezvous; port 0 on one node")
    parser.add_argument("--run-id", required=True)
    parser.add_argument("--join-timeout-s", type=int, default=600)
    parser.add_argument("--report", type=Path, required=True, help="where the failed ranks are written")
    return parser.parse_args(arguments[:split]), arguments[split + 1 :]


if __name__ == "__main__":
    main()
