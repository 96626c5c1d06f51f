"""The node agent of a run on this machine, a child of `ebbtide run`: `python -m launchers.node.local_agent …`.

Exit code 0: complete; 1: failed; 143: stopped. attempts/N/outcome.json says how it ended.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
from dataclasses import replace
from pathlib import Path

from core.config import load_run_file
from core.processes.die_with_parent import adopt_orphans, die_with_parent
from core.run_dir.attempt_folder import AttemptFolder
from core.run_dir.run_directory import RunDirectory
from launchers.attempts.outcome import write_outcome
from launchers.node.agent import run_agent
from launchers.node.log_setup import start_logging
from launchers.node.seat import Seat


def main() -> None:
    """Run the attempt on this machine."""
    parser = argparse.ArgumentParser(prog="launchers.node.local_agent", description=__doc__)
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--attempt", type=int, required=True)
    options = parser.parse_args()
    die_with_parent(os.getppid(), signal.SIGTERM)
    adopt_orphans()
    directory = RunDirectory(options.run_dir)
    start_logging(load_run_file(directory.run_file).logging)
    folder = directory.attempt(options.attempt)
    key = AttemptFolder(folder).key.read_text()
    seat = Seat(
        attempt=options.attempt,
        node=0,
        names=(socket.gethostname(),),
        host="127.0.0.1",
        store=None,
        key=key,
    )
    outcome = run_agent(directory, seat, lambda: "preempted")
    if outcome.how == "node_failure":  # there is no other node to go to
        outcome = replace(outcome, how="failed", failed_nodes=())
    write_outcome(folder, outcome)
    sys.exit(outcome.exit_code)


if __name__ == "__main__":
    main()
