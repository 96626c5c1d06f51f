"""A scoring process: `python -P -m core.reward.worker SOCKET_FD PARENT_PID`, started by `core.reward.pool`.

Over the socket it is given the reward section, and those of evaluation sets that have another, as plain values, answers
READY or the reason why it cannot score, and then answers each sample with its number and score
(`core.reward.remote_messages`), until the socket closes. Scoring runs in the main thread, as math-verify needs.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import math
import os
import traceback
from collections.abc import Awaitable, Mapping
from dataclasses import replace
from multiprocessing.connection import Connection
from numbers import Real
from pathlib import Path
from typing import Any

from core.config.sections.reward import RewardConfig
from core.processes import plain
from core.processes.user_process import READY, connection_to_owner, short
from core.reward.overlong import overlong_penalty
from core.reward.parts import strange_names
from core.reward.remote_messages import dump_score, load_samples
from core.reward.sample import RewardInput, Score
from core.reward.scorers import Scorer, build_scorers


def score_once(scorer: Scorer, sample: RewardInput, runner: asyncio.Runner, key: str = "reward") -> Score:
    """Score a sample; whatever goes wrong becomes the failure text.

    Args:
        key: which number counts, where the scorer gives a mapping of them.
        runner: whose event loop a coroutine function runs in: the same for all samples, as clients that such a function
            keeps belong to one loop.
    """
    try:
        made = scorer(sample)
        return checked(runner.run(_awaited(made)) if inspect.isawaitable(made) else made, key)
    except BaseException as error:  # SystemExit from a reward function must not end the worker
        return Score(None, describe(error))


def checked(value: Any, key: str) -> Score:
    """A finite number, or a mapping of such, as a score; anything else as a failure."""
    return _of_parts(value, key) if isinstance(value, Mapping) else _of_number(value)


def _of_number(value: Any) -> Score:
    if getattr(value, "ndim", None) == 0:  # numpy's and torch's scalars
        value = value.item()
    if not isinstance(value, Real):
        return Score(None, f"the reward is a {type(value).__name__} ({short(repr(value))}); wanted a number")
    if not math.isfinite(value):
        return Score(None, f"the reward is {float(value)}; wanted a finite number")
    return Score(float(value))


def _of_parts(found: Mapping[Any, Any], key: str) -> Score:
    """The number under the key, with all others as its parts."""
    if (strange := strange_names(found)) is not None:
        return Score(None, f"the reward is a mapping with {strange}")
    scores = {name: _of_number(one) for name, one in found.items()}
    failed = next((f"{name}: {one.failure}" for name, one in scores.items() if one.value is None), None)
    if failed is not None:
        return Score(None, failed)
    if key not in scores:
        listed = ", ".join(found) or "nothing"
        return Score(None, f"the reward is a mapping of {listed}; wanted the key {key} (reward.key) among them")
    return Score(scores[key].value, None, {name: one.value for name, one in scores.items() if one.value is not None})


def describe(error: BaseException) -> str:
    """Type, message and the innermost frame: `KeyError: 'x' (score.py:12 in score)`."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno} in {frames[-1].name})" if frames else ""
    return f"{type(error).__name__}: {short(str(error))}{place}"


def serve(connection: Connection) -> None:
    """Answer samples until the other side closes."""
    try:
        told = plain.load(connection.recv_bytes())
        config = RewardConfig.model_validate(told["reward"])
        of_sets = {name: RewardConfig.model_validate(one) for name, one in told["of_sets"].items()}
        scorer = build_scorers(config, of_sets)
    except Exception as error:
        reason = str(error) if isinstance(error, ValueError) else describe(error)
        connection.send_bytes(reason.encode("utf-8", "replace"))
        return
    connection.send_bytes(READY.encode())
    own_pid = os.getpid()
    with asyncio.Runner() as runner:
        for number in itertools.count():
            try:
                (sample,) = load_samples(connection.recv_bytes())
            except EOFError:
                return
            except ValueError as error:
                score = Score(None, f"the sample could not be read by the worker: {error}")
            else:
                score = with_penalty(
                    score_once(scorer, sample, runner, of_sets.get(sample.evaluation, config).key), sample, config
                )
            if os.getpid() != own_pid:  # a child that the function forked, whose error came as far as this
                os._exit(1)
            connection.send_bytes(dump_score(number, score))


def with_penalty(score: Score, sample: RewardInput, config: RewardConfig) -> Score:
    """The score less the penalty of the run file on long responses."""
    if score.value is None or config.overlong_buffer_tokens is None:
        return score
    penalty = overlong_penalty(sample, config.overlong_buffer_tokens, config.overlong_penalty)
    return replace(score, value=score.value + penalty)


async def _awaited(made: Awaitable[Any]) -> Any:
    return await made


if __name__ == "__main__":
    with connection_to_owner() as connection_of_this:
        serve(connection_of_this)
