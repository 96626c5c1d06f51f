"""What `ebbtide check` found out, for a person: a fact a line at 80 columns. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from core.data.template_frame import template_frame
from core.reward.trial import Trial
from core.samples import Demonstration, Prompt

WIDTH, NAME_WIDTH = 80, 12
MOST_TOKENS, MOST_LINES = 24, 12


def fact(name: str, text: str) -> str:
    """A named line, folded under itself; a name that is too long has a line of its own."""
    head = f"{name:<{NAME_WIDTH}}"
    lines = textwrap.wrap(
        text, WIDTH, initial_indent=" " * NAME_WIDTH, subsequent_indent=" " * NAME_WIDTH, break_on_hyphens=False
    )
    body = "\n".join(lines)
    return f"{name}\n{body}" if len(name) >= NAME_WIDTH else head + body[NAME_WIDTH:]


def prompts_text(prompts: Sequence[Prompt], most_tokens: int) -> str:
    """12 prompts of 5 to 9 tokens, none longer than max_prompt_tokens, 64"""
    lengths = [len(prompt.tokens) for prompt in prompts]
    long = sum(length > most_tokens for length in lengths)
    left_out = f"{long} longer than max_prompt_tokens, {most_tokens}, left out" if long else "none too long"
    count = "1 prompt" if len(prompts) == 1 else f"{len(prompts):,} prompts"
    span = str(min(lengths)) if min(lengths) == max(lengths) else f"{min(lengths)} to {max(lengths)}"
    return f"{count} of {span} tokens, {left_out}"


def prompt_lines(prompt: Prompt) -> list[str]:
    """The first prompt as the model sees it, and what the template made of the row."""
    shown = " ".join(map(str, prompt.tokens[:MOST_TOKENS]))
    more = f" and {len(prompt.tokens) - MOST_TOKENS} more" if len(prompt.tokens) > MOST_TOKENS else ""
    lines = [fact("tokens", f"{shown}{more}"), *_text(prompt.text)]
    if isinstance(prompt, Demonstration):
        lines += [fact("learnt", repr(one)) for one in _learnt(prompt)]
    if prompt.messages:
        frame = template_frame(prompt.text, prompt.messages)
        lines.append(fact("template", "adds " + ", ".join(repr(one) for one in frame.added if one)))
        lines.append(fact("", f"leaves out {', '.join(frame.dropped) or 'nothing'}"))
    return lines


def answers_text(prompts: Sequence[Prompt], most_tokens: int) -> str:
    """answers of 3 to 40 tokens, 30 of them learnt on average, none longer than max_response_tokens, 64"""
    rows = [prompt for prompt in prompts if isinstance(prompt, Demonstration)]
    lengths = [len(row.response_tokens) for row in rows]
    learnt = sum(sum(row.loss_mask) for row in rows) / len(rows)
    long = sum(length > most_tokens for length in lengths)
    left_out = f"{long} longer than max_response_tokens, {most_tokens}, left out" if long else "none too long"
    span = str(min(lengths)) if min(lengths) == max(lengths) else f"{min(lengths)} to {max(lengths)}"
    return f"answers of {span} tokens, {learnt:.1f} of them learnt on average, {left_out}"


def _learnt(row: Demonstration) -> Iterator[str]:
    """The texts that are learnt."""
    turns = [turn.text for turn in row.turns if turn.role == "assistant"]
    yield from turns or [row.response_text]


def reward_text(trial: Trial) -> str:
    """data: 1.0 for the label, 0.0 for an empty response; 0.4 ms a call, ready after 0.8 s"""
    said: dict[str, list[str]] = {}
    for one in trial.answers:
        value = one.score.failure if one.score.value is None else f"{one.score.value:g}"
        said.setdefault(one.source, []).append(f"{value} for {one.response}")
    texts = [f"{source}: {', '.join(values)}" for source, values in said.items()]
    took = min((one.took_s for one in trial.answers), default=0.0)
    return f"{'; '.join(texts)}; {1000 * took:.1f} ms a call, ready after {trial.ready_s:.1f} s"


def _text(text: str) -> list[str]:
    """The text under a bar, cut, with everything escaped that a terminal would act on."""
    shown = []
    for line in text.split("\n"):
        plain = "".join(one if one.isprintable() else repr(one)[1:-1] for one in line)
        shown += textwrap.wrap(plain, WIDTH - NAME_WIDTH - 2, drop_whitespace=False) or [""]
    cut = [f"… {len(shown) - MOST_LINES} more lines"] if len(shown) > MOST_LINES else []
    rows = [*shown[:MOST_LINES], *cut]
    return [f"{'text' if number == 0 else '':<{NAME_WIDTH}}| {row}".rstrip() for number, row in enumerate(rows)]
