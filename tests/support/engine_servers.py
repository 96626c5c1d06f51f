"""Real SGLang servers for tests, on free ports, with their output in a log file."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from core.pretrained.packing import Packing
from core.pretrained.quantised import scheme_of
from core.sglang.client import EngineClient
from core.sglang.launch import EngineSpec, command, environment

START_S = 240.0


@dataclass
class RunningEngine:
    """A server that answers."""

    process: subprocess.Popen[bytes]
    client: EngineClient
    spec: EngineSpec
    log: Path

    @property
    def model_dir(self) -> Path:
        return self.spec.model_dir


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def start_engine(
    model_dir: Path,
    log: Path,
    api_key: str | None = None,
    tensor_parallel: int = 1,
    options: Mapping[str, Any] | None = None,
    num_threads: int = 1,
    max_running_requests: int = 32,
    packing: Packing | None = None,
) -> RunningEngine:
    """Start a CPU server; returns at once."""
    spec = EngineSpec(
        name=log.stem,
        model_dir=model_dir,
        device="cpu",
        dtype="float32",
        host="127.0.0.1",
        port=free_port(),
        tensor_parallel=tensor_parallel,
        max_total_tokens=8192,
        max_running_requests=max_running_requests,
        api_key=api_key,
        num_threads=num_threads,
        options=options or {},
        quantised=scheme_of(model_dir) is not None,
        packing=packing,
    )
    with log.open("wb") as out:
        process = subprocess.Popen(
            command(spec), env=environment(spec, os.environ), stdin=subprocess.DEVNULL, stdout=out, stderr=out
        )
    return RunningEngine(process, EngineClient(f"http://{spec.host}:{spec.port}", api_key), spec, log)


def wait_up(engine: RunningEngine) -> RunningEngine:
    """Wait until it answers; its log is in the error if it does not."""
    try:
        engine.client.wait_healthy(START_S, alive=lambda: engine.process.poll() is None)
    except Exception as error:
        raise AssertionError(f"{error}\n{engine.log.read_text()[-4000:]}") from error
    return engine


@contextmanager
def running_engine(
    model_dir: Path, log: Path, api_key: str | None = None, packing: Packing | None = None
) -> Iterator[RunningEngine]:
    """A server for the length of a `with` block."""
    engine = start_engine(model_dir, log, api_key, packing=packing)
    try:
        yield wait_up(engine)
    finally:
        engine.process.kill()
        engine.process.wait(30)


@contextmanager
def gpu_engine(spec: EngineSpec, log: Path) -> Iterator[RunningEngine]:
    """A server of one's own settings for the length of a `with` block."""
    with log.open("wb") as out:
        process = subprocess.Popen(command(spec), env=environment(spec, os.environ), stdout=out, stderr=out)
    running = RunningEngine(process, EngineClient(f"http://{spec.host}:{spec.port}", spec.api_key), spec, log)
    try:
        yield wait_up(running)
    finally:
        process.kill()
        process.wait(30)


def has_ended(process: psutil.Process) -> bool:
    """Gone, or a zombie that nobody has collected yet."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_ended(processes: Sequence[psutil.Process], deadline_s: float = 30.0) -> None:
    """Wait until all have ended; AssertionError naming those that have not."""
    end = time.monotonic() + deadline_s
    while left := [process for process in processes if not has_ended(process)]:
        assert time.monotonic() < end, f"still running after {deadline_s:g} s: {left}"
        time.sleep(0.02)
