"""A reward that an address gives: asked over HTTP, again where that fails, and never beyond the time limit.

The request is a POST of a JSON mapping (`told`), the answer a number as JSON, or a mapping of numbers. The names
`prompt`, `response` and `label` are those that slime's `remote_rm` sends, so a server made for it answers unchanged.
Left out: other shapes of requests; a function of one's own asks as it likes.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, time
from decimal import Decimal
from pathlib import PurePath
from typing import Any

import httpx

from common.mistake import Wrong
from common.redaction import redacted_text
from core.reward.address import refuse_no_address, shown_address
from core.reward.sample import OWN_SHARE_OF_TIME, RewardInput

WANTED = "a number, or a mapping of numbers, as JSON"
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0  # before a further try; each is twice the one before, give or take a quarter
MOST_BYTES = 1 << 20  # of an answer
MOST_SHOWN = 200  # characters of an answer, in messages
BUSY = (408, 425, 429)  # states that pass, beside those of 500 and above


class Again(Exception):
    """A try failed in a way that may pass."""


@dataclass
class Tries:
    """What has been tried for a sample, for the message."""

    number: int = 0
    last: str = "no answer yet"

    def __str__(self) -> str:
        return f"{self.number} {'try' if self.number == 1 else 'tries'}: {self.last}"


class HttpScorer:
    """The reward that an address answers with; each scoring process keeps its connections to it."""

    def __init__(
        self,
        url: str,
        timeout_s: float,
        headers: Mapping[str, str] | None = None,
        token_variable: str | None = None,
        retries: int = 10,
        try_timeout_s: float | None = None,
    ) -> None:
        """Keep the settings; nothing is asked before the first sample.

        Args:
            url: `http://host:port/path` or `https://…`.
            timeout_s: of a sample, `reward.timeout_s`; all tries together end a little before, so that it is said here
                what was waited for.
            headers: further ones of each request.
            token_variable: a variable of the environment; its value is sent as `Authorization: Bearer …`.
            retries: tries beyond the first, where there is no answer, or status 5xx, 408, 425 or 429.
            try_timeout_s: of one try; None: no limit of its own.
        Raises:
            Wrong: `url` is none, or the variable is not set.
        """
        refuse_no_address(url)
        self._url = url
        self._shown = shown_address(url)
        self._limit_s = timeout_s * OWN_SHARE_OF_TIME
        self._headers = {**(headers or {}), **_authorization(token_variable)}
        self._retries = retries
        self._try_timeout_s = try_timeout_s
        self._client: httpx.AsyncClient | None = None  # made in the event loop that it belongs to

    async def __call__(self, sample: RewardInput) -> Any:
        body = dump(sample)
        tries = Tries()
        try:
            async with asyncio.timeout(self._limit_s):
                return await self._ask(body, tries)
        except TimeoutError:
            found = f"no reward from {self._shown} within {self._limit_s:g} s, in {tries}"
            raise Wrong(found, WANTED, "see to its server, or raise reward.timeout_s") from None

    async def _ask(self, body: bytes, tries: Tries) -> Any:
        for number in range(self._retries + 1):
            if number:
                await asyncio.sleep(_wait_s(number))
            tries.number = number + 1
            try:
                async with asyncio.timeout(self._try_timeout_s):
                    return await self._try(body)
            except Again as error:
                tries.last = str(error)
            except httpx.HTTPError as error:
                tries.last = f"{type(error).__name__}: {redacted_text(str(error))}"
            except TimeoutError:
                tries.last = f"no answer within {self._try_timeout_s} s"
        found = f"no reward from {self._shown} in {tries}"
        raise Wrong(found, WANTED, "see to its server, or correct reward.options")

    async def _try(self, body: bytes) -> Any:
        if self._client is None:
            headers = {"Content-Type": "application/json", **self._headers}
            self._client = httpx.AsyncClient(headers=headers, timeout=None)
        async with self._client.stream("POST", self._url, content=body) as answer:
            text = await self._text(answer)
        if answer.status_code in BUSY or answer.status_code >= 500:
            raise Again(f"status {answer.status_code} ({_short(text)})")
        if answer.status_code != 200:
            found = f"status {answer.status_code} from {self._shown} ({_short(text)})"
            raise Wrong(found, "status 200", "correct reward.options")
        try:
            return json.loads(text)
        except ValueError:
            found = f"an answer from {self._shown} that is no JSON ({_short(text)})"
            raise Wrong(found, WANTED, "correct its server") from None

    async def _text(self, answer: httpx.Response) -> bytes:
        found = b""
        async for part in answer.aiter_bytes():
            found += part
            if len(found) > MOST_BYTES:
                raise Wrong(
                    f"an answer from {self._shown} of more than {MOST_BYTES} bytes", WANTED, "correct its server"
                )
        return found


def told(sample: RewardInput) -> dict[str, Any]:
    """What is sent: all that a function of one's own would be given."""
    found = {**vars(sample)}
    return {"prompt": found.pop("prompt_text"), "response": found.pop("response_text"), **found}


def dump(sample: RewardInput) -> bytes:
    """The request's body. Dates and paths are sent as text, decimals as numbers, tuples and sets as lists.

    Raises:
        Wrong: the row has a value that JSON has not.
    """
    try:
        return json.dumps(told(sample), default=_plain, allow_nan=False).encode("ascii")
    except (TypeError, ValueError) as error:
        wanted = "values that JSON has: text, numbers, lists, mappings"
        raise Wrong(f"a row that cannot be sent as JSON ({error})", wanted, "leave the key out of the rows") from None


def _plain(value: Any) -> Any:
    match value:
        case set() | frozenset():
            return list(value)
        case Decimal():
            return float(value)
        case date() | time() | PurePath():
            return str(value)
    raise TypeError(f"a {type(value).__name__}")


def _authorization(variable: str | None) -> dict[str, str]:
    if variable is None:
        return {}
    if not os.environ.get(variable):
        wanted = "the token that reward.options.token_variable is to send"
        raise Wrong(f"nothing in the variable {variable}", wanted, "set it where the run starts")
    return {"Authorization": f"Bearer {os.environ[variable]}"}


def _wait_s(number: int) -> float:
    """Seconds before a try, the first again having number 1."""
    wait_s: float = min(FIRST_WAIT_S * 2.0 ** (number - 1), LONGEST_WAIT_S)
    return wait_s * random.uniform(0.75, 1.25)


def _short(text: bytes) -> str:
    return repr(redacted_text(text.decode(errors="replace"))[:MOST_SHOWN])
