"""Which samples of a step somebody asks for, and samples as lines of JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from core.samples import Status
from core.trajectory import StepRecord


@dataclass(frozen=True)
class Choice:
    """What the samples must be; several wishes: all of them.

    Attributes:
        failed: without a reward.
        truncated: cut off at the most tokens.
        row: of this row of the data; None: of any.
    """

    failed: bool = False
    truncated: bool = False
    row: int | None = None

    @property
    def asked(self) -> bool:
        """Whether anything is wished for at all."""
        return self.failed or self.truncated or self.row is not None

    def indices(self, record: StepRecord) -> list[int]:
        """The samples of a step that are meant, in the order of the store."""
        return [index for index in range(len(record)) if self._takes(record, index)]

    def _takes(self, record: StepRecord, index: int) -> bool:
        return (
            (not self.failed or math.isnan(record.reward[index]))
            and (not self.truncated or record.status[index] == Status.TRUNCATED)
            and self.row in (None, int(record.row[index]))
        )

    def __str__(self) -> str:
        wishes = {"failed": self.failed, "truncated": self.truncated, f"of row {self.row}": self.row is not None}
        return ", ".join(name for name, wished in wishes.items() if wished)


def json_lines(record: StepRecord, choice: Choice) -> Iterator[str]:
    """One JSON object per sample; control characters are escaped."""
    for index in choice.indices(record):
        yield json.dumps(_fields(record, index))


def _fields(record: StepRecord, index: int) -> dict[str, Any]:
    reward = float(record.reward[index])
    numbers = {name: int(getattr(record, name)[index]) for name in ("group", "index", "row")}
    return {
        "step": record.step,
        **numbers,
        "reward": None if math.isnan(reward) else reward,
        "reward_parts": record.parts(index),
        "advantage": float(record.advantage[index]),
        "status": record.status[index],
        "failure": record.failure[index],
        "label": _label(record.label[index]),
        "prompt": record.prompt_text[index],
        "response": record.response_text[index],
        "prompt_tokens": len(record.prompt_tokens[index]),
        "response_tokens": len(record.response_tokens[index]),
        "own_tokens": int(record.loss_mask[index].sum()),
        "engine": record.engine[index],
        "weight_version": record.weight_version[index],
        "seed": None if record.seed is None else int(record.seed[index]),
    }


def _label(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
