"""What a driver and its generation workers say to each other: lines of JSON, so that nothing is ever unpickled.

    driver -> worker   ["begin", settings]                           answered by ["ready", place] or ["unfit", why]
                       ["task", number, task]                        by ["made", number, responses]
                                                                     or ["failed", number, why]
                       ["drop", number]                              by ["dropped", number, place]
    worker -> driver   ["generate", number, call, tokens, sampling]  the worker has no other way to an engine; by
                                       ["turn", call, tokens, logprobs, text, status, weight_version]
                                       or ["refused", call, why]

Label, metadata, messages and extra of a user are plain values (`core.processes.plain`), as texts within the line.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple
from typing import Any

from pydantic import TypeAdapter

from core.processes import plain
from core.rollout.task import Response, Task, Turn
from core.samples import SamplingParams, Span, Status

MAX_LINE_BYTES = 2**28
NOTE_BYTES = 8
PLAIN = ("label", "metadata", "messages")  # of a task

_SAMPLING: TypeAdapter[SamplingParams] = TypeAdapter(SamplingParams)
_SPAN = tuple[int, int, str, float | None, str, str]  # the fields of a Span
_ANSWER = TypeAdapter(tuple[list[int], list[float], list[int] | None, Status, str, list[_SPAN]])


def line(*parts: Any) -> bytes:
    """One message."""
    return json.dumps(parts, separators=(",", ":")).encode("ascii") + b"\n"


def parts(text: bytes) -> list[Any]:
    """What `line` was given; it begins with a text.

    Raises:
        ValueError: it is no such line.
    """
    found = json.loads(text)
    if not isinstance(found, list) or not found or not isinstance(found[0], str):
        raise ValueError(f"found {text[:80]!r}; wanted a message")
    return found


def task_fields(task: Task) -> dict[str, Any]:
    """A task as JSON's own kinds.

    Raises:
        plain.NotPlain: label or metadata hold something that cannot be sent.
    """
    rows = plain.dump([task.label, dict(task.metadata), [dict(one) for one in task.messages]]).decode("ascii")
    fields = {name: getattr(task, name) for name in Task.__dataclass_fields__ if name not in PLAIN}
    return {**fields, "sampling": asdict(task.sampling), "rows": rows}


def read_task(fields: Mapping[str, Any]) -> Task:
    """What `task_fields` was given."""
    known = dict(fields)
    rows = dict(zip(PLAIN, plain.load(known.pop("rows")), strict=True))
    known["prompt_tokens"] = tuple(known["prompt_tokens"])
    return Task(**{**known, "sampling": read_sampling(known["sampling"]), **rows})


def read_sampling(fields: Any) -> SamplingParams:
    """Sampling parameters from a message.

    Raises:
        ValueError: it holds other fields or kinds of values.
    """
    return _SAMPLING.validate_python(fields)


def read_turn(fields: Sequence[Any]) -> Turn:
    """A turn from what follows the call's number."""
    tokens, logprobs, text, status, weight_version = fields
    return Turn(tuple(tokens), tuple(logprobs), text, Status(status), weight_version)


def response_fields(response: Response) -> list[Any]:
    """A response as JSON's own kinds.

    Raises:
        TypeError, ValueError: it holds values that are no numbers, or an extra that cannot be sent.
    """
    mask = None if response.loss_mask is None else [int(value) for value in response.loss_mask]
    return [
        [int(token) for token in response.tokens],
        [float(value) for value in response.logprobs],
        mask,
        Status(response.status).value,
        plain.dump(dict(response.extra)).decode("ascii"),
        [astuple(one) for one in response.turns],
    ]


def read_response(fields: Any) -> Response:
    """What `response_fields` was given. It comes from a user's process: kinds are checked, values are not.

    Raises:
        ValueError: it is no such list.
    """
    tokens, logprobs, mask, status, extra, turns = _ANSWER.validate_python(fields)
    return Response(tokens, logprobs, mask, status, plain.load(extra), tuple(Span(*one) for one in turns))
