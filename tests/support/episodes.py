"""Episodes of the built-in dialogue: the model's turns are scripted, all else is real.

The model of a script says its turns one after the other, and the last of them again and again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from core.checks.tool_schema import tool_schemas
from core.data import Rendering
from core.pretrained.tokenizer import Tokenizer
from core.rollout.dialogue import Dialogue
from core.rollout.task import Response, Task, Turn
from core.rollout.worker import WorkerEngine
from core.samples import SamplingParams, Status
from tests.support import chat_templates
from tests.support.chat_templates import ENDS


@cache
def tokenizer(family: str) -> Tokenizer:
    return chat_templates.tokenizer(family)


class Script:
    """What a worker is for an engine. Turns of the model are given: text, its end with it or not, or tokens."""

    def __init__(self, family: str, turns: Sequence[Any], how: Rendering) -> None:
        self.family, self.how = family, how
        self.turns = list(turns)
        self.asked: list[list[int]] = []
        self.limits: list[int] = []

    def tokenizer(self) -> Tokenizer:
        return tokenizer(self.family)

    def rendering(self, evaluation: str) -> Rendering:
        return self.how

    async def ask(self, number: int, tokens: Sequence[int], params: SamplingParams) -> Turn:
        self.asked.append(list(tokens))
        self.limits.append(params.max_response_tokens)
        turn = self.turns.pop(0) if len(self.turns) > 1 else self.turns[0]
        said, end = turn if isinstance(turn, tuple) else (turn, ENDS[self.family])
        made = list(said) if isinstance(said, list) else self.tokenizer().encode(said + end)
        made, status = made[: params.max_response_tokens], Status.COMPLETED
        if len(made) == params.max_response_tokens or not end:
            status = Status.TRUNCATED
        text = self.tokenizer().decode(made)
        return Turn(tuple(made), tuple(-0.1 * (place + 1) for place in range(len(made))), text, status, "step3")


class Played:
    """An episode that was played, and what the model had seen."""

    def __init__(self, code: Path, family: str, turns: Sequence[Any], label: Any = "", room: int = 1500, **keys: Any):
        paths = tuple(f"{code}:{name}" for name in keys.pop("tools", ()))
        names = {key: f"{code}:{keys[key]}" for key in ("environment",) if key in keys}
        keys = {"call_timeout_s": 0.3, **keys, **names, "tools": paths}
        options = keys.pop("template_options", {})
        how = Rendering(tools=tool_schemas(paths), generation_prompt="environment" not in keys, options=options)
        self.messages = [{"role": "user", "content": "What is 3 + 4?"}]
        self.render = lambda messages, end=True: how.text(tokenizer(family), messages, end)
        self.prompt = self.render(self.messages, how.generation_prompt)
        sampling = SamplingParams(room, stop_token_ids=tokenizer(family).eos_token_ids, seed=5)
        self.tokens = tokenizer(family).encode(self.prompt)
        task = Task(tuple(self.tokens), self.prompt, 17, label, {}, sampling, 0, 0, step=1, messages=self.messages)
        self.script = Script(family, turns, how)
        made = asyncio.run(Dialogue(**keys)(task, WorkerEngine(self.script, 1, task)))  # type: ignore[arg-type]
        self.responses: list[Response] = made if isinstance(made, list) else [made]
        self.family = family

    @property
    def response(self) -> Response:
        (one,) = self.responses
        return one

    def spoken(self, response: Response | None = None) -> list[tuple[str, str]]:
        """(role, text) of each stretch."""
        one = response or self.response
        decode = tokenizer(self.family).decode
        return [(span.role, decode(one.tokens[span.start : span.end], False)) for span in one.turns]

    @property
    def episode(self) -> dict[str, Any]:
        return dict(self.response.extra["episode"])
