"""A scoring process: `python -P -m core.reward.worker SOCKET_FD PARENT_PID`, started by `core.reward.pool`.

Over the socket it is given the reward section as plain values, answers READY or the reason why it cannot score, and
then answers each sample with its score (`core.reward.remote_messages`), until the socket closes. Scoring runs
in the main thread, as math-verify needs.
"""

from __future__ import annotations

import math
import os
import sys
import traceback
from multiprocessing.connection import Connection
from numbers import Real
from pathlib import Path
from typing import Any

from core.config.schema import RewardConfig
from core.processes import plain
from core.processes.die_with_parent import die_with_parent
from core.processes.user_process import short
from core.reward.remote_messages import dump_score, load_samples
from core.reward.sample import READY, RewardInput, Score
from core.reward.scorers import Scorer, build_scorer


def score_once(scorer: Scorer, sample: RewardInput) -> Score:
    """Score a sample; whatever goes wrong becomes the failure text."""
    try:
        return checked(scorer(sample))
    except BaseException as error:  # SystemExit from a reward function must not end the worker
        return Score(None, describe(error))


def checked(value: Any) -> Score:
    """A finite number as a score; anything else as a failure."""
    if getattr(value, "ndim", None) == 0:  # numpy's and torch's scalars
        value = value.item()
    if not isinstance(value, Real):
        return Score(None, f"the reward is a {type(value).__name__} ({short(repr(value))}); wanted a number")
    if not math.isfinite(value):
        return Score(None, f"the reward is {float(value)}; wanted a finite number")
    return Score(float(value))


def describe(error: BaseException) -> str:
    """Type, message and the innermost frame: `KeyError: 'x' (score.py:12 in score)`."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno} in {frames[-1].name})" if frames else ""
    return f"{type(error).__name__}: {short(str(error))}{place}"


def serve(connection: Connection) -> None:
    """Answer samples until the other side closes."""
    try:
        scorer = build_scorer(RewardConfig.model_validate(plain.load(connection.recv_bytes())))
    except Exception as error:
        reason = str(error) if isinstance(error, ValueError) else describe(error)
        connection.send_bytes(reason.encode("utf-8", "replace"))
        return
    connection.send_bytes(READY.encode())
    while True:
        try:
            (sample,) = load_samples(connection.recv_bytes())
        except EOFError:
            return
        except ValueError as error:
            connection.send_bytes(dump_score(0, Score(None, f"the sample could not be read by the worker: {error}")))
            continue
        connection.send_bytes(dump_score(0, score_once(scorer, sample)))


def main() -> None:
    descriptor, parent_pid = map(int, sys.argv[1:])
    die_with_parent(parent_pid)
    os.set_inheritable(descriptor, False)  # or a program that a reward function starts would keep the socket open
    with Connection(descriptor) as connection:
        serve(connection)


if __name__ == "__main__":
    main()
