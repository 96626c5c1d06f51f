"""What runs of a small task share: this process, which is the trainer rank of all, a store and an engine.

For bench/algorithms.py and bench/mismatch.py.
"""

from __future__ import annotations

import argparse
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

KEY = "key"
MOST_SAMPLES = 64  # that the engine has in flight


class Stage:
    """What the runs share: a store, and an engine that is published in it anew for each of them, as another attempt."""

    def __init__(self, model_dir: Path, log: Path, options: Mapping[str, Any] | None = None) -> None:
        """Begin with `with`.

        Args:
            options: of SGLang by name, in the place of those that the engine would have.
        """
        self._model_dir, self._log, self._options = model_dir, log, options

    def __enter__(self) -> Stage:
        from core.processes.device import num_threads
        from core.processes.rendezvous import Address, Rendezvous
        from tests.support.engine_servers import start_engine

        listener = socket.create_server(("127.0.0.1", 0))
        self._address = Address(*listener.getsockname())
        self._served = Rendezvous(self._address, 0, KEY, listener=listener)
        self._engine = start_engine(
            self._model_dir,
            self._log,
            KEY,
            options=self._options,
            num_threads=num_threads(1),
            max_running_requests=MOST_SAMPLES,
        )
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "EBBTIDE_API_KEY": KEY}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        return self

    def __exit__(self, *_: object) -> None:
        self._engine.process.kill()
        self._engine.process.wait(30)

    def run(self, run_dir: Path, attempt: int) -> None:
        """One run, whose trainer rank is this process."""
        from core.config.layout import engine_name
        from core.processes.rendezvous import Member, Rendezvous
        from launchers.rank.rank_run import RankRun

        engine, store = self._engine, Rendezvous(self._address, attempt, KEY)
        url = f"http://{engine.spec.host}:{engine.spec.port}"
        store.publish(Member("engine", engine_name(0, 0), 0, engine.spec.host, engine.process.pid, url))
        seat = argparse.Namespace(
            run_dir=run_dir, attempt=attempt, node=0, store=str(self._address), host="127.0.0.1", ends_at=None
        )
        rank_run = RankRun(seat)
        rank_run.run()
        assert rank_run.parts is not None
        rank_run.parts.trainer.close()  # type: ignore[attr-defined]  # the real one
