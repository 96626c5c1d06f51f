"""A real engine with empty weights, as a process of its own, and the roster that a trainer rank would have of it."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import modelcfg
from core.engines.roster import Engines
from core.processes.rendezvous import Address, Member, Rendezvous
from core.sglang.generation import prompt_first_tokens
from core.sglang.launch import EngineSpec, command, environment
from modelcfg import ModelShape

NAME, START_S, REQUEST_S = "node0-engine0", 400.0, 600.0


@contextmanager
def one_engine(spec: EngineSpec, size: ModelShape, folder: Path) -> Iterator[tuple[Engines, Rendezvous]]:
    """Start it; at the end it is killed. If the block fails, the end of its log is printed.

    Args:
        spec: its name is NAME.
        folder: of its log.
    """
    with (folder / "engine.log").open("wb") as log:
        words = [*command(spec), "--load-format", "dummy"]
        process = subprocess.Popen(words, env=environment(spec, os.environ), stdout=log, stderr=log)
    try:
        listener = socket.create_server(("127.0.0.1", 0))
        rendezvous = Rendezvous(Address(*listener.getsockname()), 1, "bench", listener=listener)
        url = f"http://127.0.0.1:{spec.port}"
        rendezvous.publish(Member("engine", NAME, 0, "127.0.0.1", process.pid, url, (), 0))
        engines = Engines(
            rendezvous,
            [NAME],
            vocab_size=size.vocab_size,
            api_key="",
            start_s=START_S,
            request_s=REQUEST_S,
            prompt_first_tokens=prompt_first_tokens(spec.device, modelcfg.active_parameters(size)),
        )
        engines.start()
        yield engines, rendezvous
    except BaseException:
        print((folder / "engine.log").read_text()[-3000:])
        raise
    finally:
        process.kill()
        process.wait(30)


def free_port() -> int:
    """A port that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
