"""The node agent: starts the trainer ranks and the engines of its node, watches them, and leaves nothing behind.

    python -m launchers.agent --run-dir RUN --attempt 1 --node 0

Exit code 0: the run is complete. 1: it failed, and attempts/N/failure.json says who, where, in which phase and why.
143: it was asked to stop. The agent of node 0 serves the rendezvous store; the others read its address from the
attempt's folder. An engine that dies is restarted, as often as the run file allows; a trainer rank that dies ends the
attempt.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType

from core.config import load_run_file
from core.die_with_parent import adopt_orphans, die_with_parent
from core.files import write_atomically
from core.rendezvous import Address, Rendezvous, RendezvousTimeout, wait_until
from core.run_directory import RunDirectory
from launchers.children import kill_descendants, shared_memory, stop_all
from launchers.engine import EngineSlot
from launchers.failure import Failure, from_exception
from launchers.trainers import TrainerGroup

WATCH_INTERVAL_S = 0.1
STOP_GRACE_S = 10.0
STOPPED = 128 + signal.SIGTERM

log = logging.getLogger("agent")


class NodeAgent:
    """One node's processes in one attempt."""

    def __init__(self, directory: RunDirectory, attempt: int, node: int, host: str) -> None:
        self.config = load_run_file(directory.run_file)
        self.folder = directory.attempt(attempt)
        self.node = node
        self._stop_asked = False
        self.rendezvous = self._meet(attempt, host)
        slots = range(self.config.placement.engines_per_node)
        api_key = os.environ["EBBTIDE_API_KEY"]
        self.engines = [EngineSlot(self.config, self.folder, self.rendezvous, node, i, host, api_key) for i in slots]
        self.trainers = TrainerGroup(self.config, directory, attempt, node, self.rendezvous)

    def run(self) -> int:
        """Start everything, watch until the trainers are done, something fails or a stop is asked; then clean up."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask_to_stop)
        try:
            for engine in self.engines:
                engine.start()
            self.trainers.start()
            failure = self._watch()
        finally:
            self._stop()
        if failure is not None:
            failure.write(self.folder / "failure.json")
            log.error("%s", failure)
            return 1
        return STOPPED if self._stop_asked else 0

    def _watch(self) -> Failure | None:
        """Until the trainers end (None: well), an engine is beyond repair, or a stop is asked."""
        while not self._stop_asked:
            exit_code = self.trainers.exit_code()
            if exit_code is not None:
                return None if exit_code == 0 else self.trainers.failure(exit_code)
            for engine in self.engines:
                if (failure := engine.tend()) is not None:
                    return failure
            time.sleep(WATCH_INTERVAL_S)
        return None

    def _stop(self) -> None:
        """Trainers may say goodbye; engines hold nothing that is worth waiting for."""
        stop_all([child for child in [self.trainers.child] if child], STOP_GRACE_S)
        engines = [engine.child for engine in self.engines if engine.child]
        leftovers = {path for engine in engines for path in shared_memory(engine)}
        stop_all(engines, 0.0)
        kill_descendants()
        for path in leftovers:
            path.unlink(missing_ok=True)

    def _ask_to_stop(self, number: int, frame: FrameType | None) -> None:
        del frame
        log.warning("stopping on %s", signal.Signals(number).name)
        self._stop_asked = True

    def _meet(self, attempt: int, host: str) -> Rendezvous:
        """Node 0 serves the store and writes where; the others read that and connect."""
        note = self.folder / "store"
        if self.node == 0:
            rendezvous = Rendezvous(Address(host, 0), attempt, serve=True)
            write_atomically(note, str(rendezvous.address))
            return rendezvous
        deadline_s = self.config.placement.start_timeout_s
        if not wait_until(note.exists, deadline_s):
            raise RendezvousTimeout(f"node 0 did not write {note} within {deadline_s:.0f} s: is the folder shared?")
        return Rendezvous(Address.parse(note.read_text()), attempt)


def main() -> None:
    """Run one node's part of an attempt; the exit code says how it went."""
    parser = argparse.ArgumentParser(prog="launchers.agent", description=__doc__)
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--attempt", type=int, required=True)
    parser.add_argument("--node", type=int, default=0)
    parser.add_argument("--host", default="127.0.0.1", help="address under which the other nodes reach this one")
    options = parser.parse_args()
    die_with_parent(os.getppid(), signal.SIGTERM)
    adopt_orphans()
    directory = RunDirectory(options.run_dir.resolve())
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        code = NodeAgent(directory, options.attempt, options.node, options.host).run()
    except Exception as error:
        kill_descendants()
        name, log_path = f"node {options.node}", str(directory.attempt(options.attempt) / f"agent-{options.node}.log")
        failure = from_exception(error, "agent", name, "start", log_path)
        failure.write(directory.attempt(options.attempt) / "failure.json")
        log.exception("agent failed")
        code = 1
    sys.exit(code)


if __name__ == "__main__":
    main()
