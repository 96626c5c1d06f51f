"""The sinks of metrics: each is known or a class of the right kind, and takes its options."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from common.mistake import Mistake
from core.checks.doors import check_door
from core.config.schema import RunConfig
from core.doors import SINK


def sinks(config: RunConfig) -> Iterator[Mistake]:
    """The rules of a door, for each of them."""
    for index, sink in enumerate(config.logging.sinks):
        key = f"{SINK.key}.{index}"
        door = replace(SINK, key=f"{key}.name", options_key=f"{key}.{SINK.options_key}")
        yield from check_door(door, sink.name, sink.options)
