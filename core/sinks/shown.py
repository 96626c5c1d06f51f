"""Which samples of a step are shown, and as what text: of strangers, so nothing of it is markup any more."""

from __future__ import annotations

import html
from collections.abc import Sequence

from core.samples import Sample, Status
from core.sinks.sink import ShownSample

COLUMNS = ("group", "index", "reward", "prompt", "response")
LONGEST = 2000  # characters of a text that is shown; the trajectory store has all of it


def to_show(samples: Sequence[Sample], count: int) -> list[ShownSample]:
    """The `count` samples of the highest reward, and the `count` of the lowest, failed ones last; each once."""
    order = sorted(samples, key=lambda one: (one.reward is None, -(one.reward or 0.0), one.group, one.index))
    kept = order if len(order) <= 2 * count else [*order[:count], *order[len(order) - count :]]
    return [
        ShownSample(
            group=one.group,
            index=one.index,
            reward=one.reward,
            truncated=one.status is Status.TRUNCATED,
            failure=one.failure or "",
            prompt=one.prompt.text,
            response=one.response_text,
        )
        for one in kept
    ]


def markdown_table(samples: Sequence[ShownSample]) -> str:
    """A table of these, in which the texts are escaped and cut."""
    rows = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    for one in samples:
        reward = one.failure if one.reward is None else f"{one.reward:g}"
        end = " (cut off)" if one.truncated else ""
        cells = (str(one.group), str(one.index), _cell(reward), _cell(one.prompt), _cell(one.response) + end)
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def _cell(text: str) -> str:
    short = text if len(text) <= LONGEST else f"{text[:LONGEST]} …"
    escaped = html.escape(short, quote=False)
    for sign in "\\`*_[]~|":
        escaped = escaped.replace(sign, f"&#{ord(sign)};")
    return "<br>".join(escaped.splitlines())
