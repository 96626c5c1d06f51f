"""One trainer rank. torchrun starts it, with RANK, LOCAL_RANK and WORLD_SIZE in the environment.

Its output, and that of the libraries below it, goes to attempts/N/trainer-RANK.log; a failure leaves a record in
attempts/N/failures/.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from core.processes.die_with_parent import die_with_parent
from core.run_dir.attempt_folder import AttemptFolder
from core.run_dir.moment import Moment
from core.run_dir.run_directory import RunDirectory
from launchers.rank.role_arguments import role_parser


def main() -> None:
    """Run one rank to the end of the loop."""
    die_with_parent(int(os.environ["EBBTIDE_TORCHRUN_PID"]))
    options = _parse()
    rank = os.environ["RANK"]
    folder = AttemptFolder(RunDirectory(options.run_dir).attempt(options.attempt))
    log_path = folder.trainer_log(int(rank))
    _redirect_output(log_path)
    at, finish = Moment(), _nothing
    try:
        _start_logging(options.run_dir, rank)
        from launchers.rank.rank_run import RankRun  # slow imports, whose errors belong into the log and the record

        rank_run = RankRun(options)
        finish = rank_run.finish_saving
        try:
            rank_run.run()
            rank_run.await_others()
        finally:
            at = rank_run.moment
    except Exception as error:
        from launchers.attempts.failure import from_exception

        logging.getLogger("trainer").exception("trainer rank %s failed in %s", rank, at)
        record = from_exception(error, "trainer", rank, at, str(log_path))
        record.write(folder.failure_of("trainer", rank))
        finish()
        leave(1)
    leave(0)


def leave(exit_code: int) -> NoReturn:
    """End without destructors: in a broken process group they hang, or a thread stuck in it aborts the process."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    os._exit(exit_code)


def _nothing() -> None:
    pass


def _parse() -> argparse.Namespace:
    parser = role_parser("launchers.rank.trainer", __doc__)
    parser.add_argument("--store", required=True, help="host:port of the rendezvous store")
    parser.add_argument("--ends-at", type=float, help="when the allocation ends, in seconds of the epoch")
    return parser.parse_args()


def _redirect_output(path: Path) -> None:
    with path.open("ab") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())


def _start_logging(run_dir: Path, rank: str) -> None:
    from core.config import load_run_file
    from core.run_dir.run_directory import RunDirectory
    from launchers.node.log_setup import start_logging

    start_logging(load_run_file(RunDirectory(run_dir).run_file).logging, quiet=rank != "0")


if __name__ == "__main__":
    main()
