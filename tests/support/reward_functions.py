"""Reward functions that behave in every way a user's can; the response says which."""

from __future__ import annotations

import asyncio
import datetime as dt
import gc
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from core.reward import RewardInput


def behave(sample: RewardInput) -> Any:
    kind, _, rest = sample.response_text.partition(" ")
    return {
        "value": lambda: eval(rest, {"np": np, "sample": sample, "dt": dt, "inf": float("inf")}),
        "forge": lambda: forge(eval(rest, {"pickle": pickle, "Bomb": Bomb})),
        "raise": lambda: [][1],
        "await": lambda: awaits(float(rest)),
        "spawn": lambda: spawn(),
        "fork": fork,
        "exit": lambda: sys.exit("done here"),
        "hang": lambda: hang(rest),
        "die": lambda: os.kill(os.getpid(), getattr(signal, rest)),
        "leave": lambda: os._exit(3),
        "modules": lambda: float(any(name.split(".")[0] in ("torch", "transformers") for name in sys.modules)),
        "main-thread": lambda: float(threading.current_thread() is threading.main_thread()),
    }[kind]()


async def awaits(value: float) -> float:
    await asyncio.sleep(0)
    return value


def spawn() -> float:
    """The sum of squares, by another process that imports this file under its own name."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return float(sum(pool.map(square, [1, 2])))


def square(number: float) -> float:
    return number * number


def fork() -> float:
    """The child's exception goes on to whoever called, in the child."""
    if os.fork() == 0:
        raise RuntimeError("in the child")
    os.wait()
    return 1.0


def hang(pid_file: str) -> None:
    """With a child process, and deaf to SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(60)"]
    )  # bounded: a test may lose sight of it
    Path(pid_file).write_text(f"{os.getpid()} {child.pid}")
    signal.pause()
    raise AssertionError("woken")


class Bomb:
    """Makes a file where it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (Path(self.path),)


def forge(answer: bytes) -> float:
    """Write an answer of its own to the owner, in place of the worker's."""
    (connection,) = (found for found in gc.get_objects() if isinstance(found, Connection))
    connection.send_bytes(answer)
    return 1.0
