"""What a reward server and its clients say to each other. JSON only: neither side ever unpickles.

    GET  /health  ->  {"num_workers": 8}
    POST /score   body: plain values, a list of mappings, each with the fields of a `RewardInput`
                  answer: a stream of lines, each [index, value, failure, parts] of one sample as soon as it has a
                  score, and an empty line every 5 s in between. It ends early if the server has to leave: what is
                  missing then has not been scored, and may be sent again.

A scoring process and its owner use the same texts, of one sample at a time (`core.reward.worker_process`).
Every request carries `Authorization: Bearer KEY`; without it the answer is 401, whatever was asked.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields

from core.processes import plain
from core.reward.parts import MOST_PARTS, strange_names
from core.reward.sample import RewardInput, Score

HEARTBEAT_S = 5.0
SILENCE_S = 30.0  # a server that sends nothing for so long hangs
HEARTBEAT = b"\n"
NAMES = {field.name for field in fields(RewardInput)}
KINDS = {"prompt_text": str, "response_text": str, "metadata": dict, "messages": list, "num_response_tokens": int}


def dump_sample(sample: RewardInput) -> bytes:
    """One sample as an element of a request.

    Raises:
        plain.NotPlain: label or metadata hold something that cannot be sent.
    """
    told = {**vars(sample), "metadata": dict(sample.metadata), "messages": [dict(one) for one in sample.messages]}
    return plain.dump(told)


def request_body(samples: Sequence[bytes]) -> bytes:
    """A request for these samples, each from `dump_sample`."""
    return b"[" + b",".join(samples) + b"]"


def load_samples(body: bytes) -> list[RewardInput]:
    """The samples of a request.

    Raises:
        ValueError: it is no such request.
    """
    samples = plain.load(body)
    if not isinstance(samples, list):
        raise ValueError(f"found a {type(samples).__name__}, wanted a list of samples")
    return [_sample(found) for found in samples]


def dump_score(index: int, score: Score) -> bytes:
    """One line of an answer."""
    return json.dumps([index, score.value, score.failure, dict(score.parts)]).encode("ascii") + b"\n"


def load_score(line: str, num_samples: int) -> tuple[int, Score] | None:
    """Index and score of a line; None for an empty one.

    Raises:
        ValueError: it is no such line, or of a sample that was not sent.
    """
    if not line.strip():
        return None
    index, value, failure, parts = json.loads(line)
    if type(index) is not int or not 0 <= index < num_samples or (value is None) == (failure is None):
        wanted = f"[index below {num_samples}, value, null, parts] or [index, null, failure, {{}}]"
        raise ValueError(f"{line[:200]!r}: wanted {wanted}")
    if value is None:
        return index, Score(None, str(failure))
    if not isinstance(parts, dict) or strange_names(parts):
        raise ValueError(f"{line[:200]!r}: wanted parts of at most {MOST_PARTS} names")
    return index, Score(float(value), None, {name: float(one) for name, one in parts.items()})


def _sample(found: object) -> RewardInput:
    if not isinstance(found, dict) or set(found) != NAMES:
        raise ValueError(f"a sample is no mapping with {', '.join(sorted(NAMES))}")
    for name, kind in KINDS.items():
        if type(found[name]) is not kind:
            raise ValueError(f"a sample's {name} is a {type(found[name]).__name__}, wanted a {kind.__name__}")
    return RewardInput(**found)
