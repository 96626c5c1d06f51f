"""Samples on their way from the rank whose engine made them to all others.

    8 bytes  length of the header
    header   JSON: one entry per sample, the number of its tokens and then the fields of `HEADER` in their order; of its
             experts their shape and kind
    int32    response tokens of all samples, one after the other
    float64  engine log-probs, likewise
    uint8    loss mask, likewise
    rest     experts of the samples that have some, one after the other, each as its header says

Prompts are not sent: every rank has them, and a sample names its own by `group`. [N] response tokens of all samples.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import astuple, replace
from itertools import chain, pairwise
from typing import Any

import numpy as np

from core.processes.collective import gather_bytes, num_ranks
from core.samples import FlatRouting, Prompt, Sample, Span, Status

LENGTH_BYTES = 8
BYTES_PER_TOKEN = 4 + 8 + 1
KINDS = ("|u1", "<i2")  # of numbers of experts
HEADER = (
    *("group", "index", "status", "weight_version", "response_text", "reward"),
    *("failure", "engine", "task", "turns", "episode", "seed", "reward_parts", "routing"),
)
ADDED = 2  # of these fields, the last: checkpoints of earlier versions have groups without them


class DamagedSamples(ValueError):
    """Bytes that are not what `pack` writes."""


def gather_samples(own: list[Sample], prompts: Sequence[Prompt]) -> list[Sample]:
    """The samples of all ranks, in rank order.

    Args:
        own: this rank's samples.
        prompts: of the step, by group; the same on every rank.
    Collective: all trainer ranks.
    """
    if num_ranks() == 1:
        return own
    return [sample for part in gather_bytes(pack(own)) for sample in unpack(part, prompts)]


def pack(samples: Sequence[Sample]) -> bytes:
    """Samples without their prompts, as bytes."""
    rows = [[len(s.response_tokens), *(_told(s, name) for name in HEADER)] for s in samples]
    header = json.dumps(rows, separators=(",", ":"), default=astuple).encode("ascii")
    num_tokens = sum(len(s.response_tokens) for s in samples)
    tokens = _flat([s.response_tokens for s in samples], "<i4", num_tokens)
    logprobs = _flat([s.logprobs_engine for s in samples], "<f8", num_tokens)
    mask = _flat([s.loss_mask for s in samples], "u1", num_tokens)
    experts = [np.ascontiguousarray(s.routing).tobytes() for s in samples if s.routing is not None]
    return b"".join([len(header).to_bytes(LENGTH_BYTES, "little"), header, tokens, logprobs, mask, *experts])


def unpack(data: bytes, prompts: Sequence[Prompt]) -> list[Sample]:
    """What `pack` was given, each sample with the prompt of its group.

    Raises:
        DamagedSamples: lengths do not fit, or a value has no business there.
    """
    start = LENGTH_BYTES + int.from_bytes(data[:LENGTH_BYTES], "little")
    try:
        rows = json.loads(data[LENGTH_BYTES:start])
        ends = np.cumsum([0, *(row[0] for row in rows)]).tolist()
        kinds = [dict(zip(HEADER, row[1:], strict=False)).get("routing") for row in rows]
        routings, end = _routings(data, kinds, start + BYTES_PER_TOKEN * ends[-1])
        if len(data) != end:
            raise ValueError(f"{len(data)} bytes, wanted {end} for {ends[-1]} tokens")
        tokens = np.frombuffer(data, "<i4", ends[-1], start).tolist()
        logprobs = np.frombuffer(data, "<f8", ends[-1], start + 4 * ends[-1]).tolist()
        mask = np.frombuffer(data, "u1", ends[-1], start + 12 * ends[-1]).tolist()
        spans = [slice(begin, end) for begin, end in pairwise(ends)]
        parts = [(tokens[span], logprobs[span], mask[span]) for span in spans]
        samples = [_sample(row[1:], *part, prompts) for row, part in zip(rows, parts, strict=True)]
        return [replace(sample, routing=one) for sample, one in zip(samples, routings, strict=True)]
    except (ValueError, TypeError, LookupError) as error:
        raise DamagedSamples(f"another rank's samples cannot be read: {type(error).__name__}: {error}") from error


def _flat(lists: Sequence[Sequence[float]], dtype: str, num_tokens: int) -> bytes:
    """[N] values of all samples; log-probs are exact, as every float32 or float64 is."""
    values = np.fromiter(chain.from_iterable(lists), dtype)
    assert len(values) == num_tokens, "a sample's log-probs or mask differ in length from its tokens"
    return values.tobytes()


def _told(sample: Sample, name: str) -> Any:
    """A field as the header has it: of experts K, L x k and a number's kind, or None where there are none."""
    value = getattr(sample, name)
    return (*value.shape, value.dtype.str) if name == "routing" and value is not None else value


def _routings(data: bytes, kinds: Sequence[Any], start: int) -> tuple[list[FlatRouting | None], int]:
    """Each sample's experts, which begin at this byte; and where they end."""
    found: list[FlatRouting | None] = []
    for kind in kinds:
        if kind is None:
            found.append(None)
            continue
        *shape, number = kind
        if number not in KINDS or not all(type(size) is int and size >= 0 for size in shape):
            raise ValueError(f"experts of the kind {kind!r}")
        routing = np.frombuffer(data, number, math.prod(shape), start).reshape(shape)
        found.append(routing)
        start += routing.nbytes
    return found, start


def _sample(
    row: list[object], tokens: list[int], logprobs: list[float], mask: list[int], prompts: Sequence[Prompt]
) -> Sample:
    fields = dict(zip(HEADER[: max(len(row), len(HEADER) - ADDED)], row, strict=True))
    fields.pop("routing", None)
    group = fields["group"]
    if not isinstance(group, int) or not 0 <= group < len(prompts):
        raise ValueError(f"group {group!r}, wanted one of the step's {len(prompts)} prompts")
    status = Status(str(fields.pop("status")))
    turns = tuple(Span(*one) for one in fields.pop("turns"))  # type: ignore[attr-defined]
    return Sample(
        **fields,  # type: ignore[arg-type]  # JSON's kinds; a wrong one harms nobody but its sender's run
        status=status,
        turns=turns,
        prompt=prompts[group],
        response_tokens=tokens,
        logprobs_engine=logprobs,
        loss_mask=mask,
    )
