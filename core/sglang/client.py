"""One engine, as its driver sees it: generation (asynchronous) and control (synchronous)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.samples import SamplingParams
from core.sglang.capabilities import Capabilities, ask_capabilities
from core.sglang.errors import EngineDied, EngineError, EngineTimeout
from core.sglang.generation import (
    Generation,
    GroupRequest,
    check_length,
    check_tokens,
    generate_body,
    numbers,
    parse_generation,
    parse_prompt,
    prompts_body,
)
from core.sglang.transport import Transport
from modelcfg import decoder_config

MEMORY_TAGS = ("weights", "kv_cache", "cuda_graph")
HEALTH_S = 30.0  # one question whether a starting engine is up; it is asked again
POLL_S = 0.2
IDLE_S, IDLE_POLL_S = 30.0, 0.002  # how long an engine may take to put away its last request


@dataclass(frozen=True)
class Timeouts:
    """Deadlines of single requests. A request may be for several groups."""

    connect_s: float = 10.0
    control_s: float = 120.0
    load_s: float = 1800.0  # weights from a file system that others use, too
    generate_s: float = 1800.0


class EngineClient:
    """Speaks to one incarnation of one engine.

    Every method raises EngineDied if the engine is gone or misses its deadline, and EngineError, with the server's own
    words, if it refuses.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str | None = None,
        vocab_size: int | None = None,
        timeouts: Timeouts | None = None,
        mock: Any = None,
        prompt_first_tokens: int = 0,
    ) -> None:
        """Keep the engine's address; nothing is sent yet.

        Args:
        vocab_size: token ids at or above it are refused; None: as in the config.json of the engine's model directory.
        mock: an httpx transport in place of the network, for tests.
        prompt_first_tokens: a group's prompt is asked for first if that saves the engine this number of tokens.
        """
        self._timeouts = timeouts or Timeouts()
        self._transport = Transport(base_url, api_key, self._timeouts.connect_s, mock)
        self._vocab_size = vocab_size
        self._prompt_first_tokens = prompt_first_tokens
        self._capabilities: Capabilities | None = None
        self._released: set[str] = set()
        self.base_url = self._transport.base_url

    # -- generation -----------------------------------------------------------------------------------------------

    async def generate(
        self, prompt_tokens: Sequence[int], params: SamplingParams, rid: str | None = None, with_routing: bool = False
    ) -> Generation:
        """One response.

        Args:
            rid: a name to abort the request by.
            with_routing: whether the experts are wanted, too: see `GroupRequest`.
        Raises:
            RequestRefused: token ids outside the vocabulary, or a request longer than the engine can hold.
        """
        return (await self.generate_groups([GroupRequest(prompt_tokens, [params], with_routing)], rid))[0][0]

    async def generate_group(
        self, prompt_tokens: Sequence[int], params: Sequence[SamplingParams], rid: str | None = None
    ) -> list[Generation]:
        """One response per element of `params`, in that order."""
        return (await self.generate_groups([GroupRequest(prompt_tokens, params)], rid))[0]

    async def generate_groups(self, groups: Sequence[GroupRequest], rid: str | None = None) -> list[list[Generation]]:
        """The responses of each group, in the order of its `params`. Long prompts are computed once, before them.

        All arrive in the engine together, and the answer comes when the last response has ended.

        With a seed each, tokens do not depend on what else the engine has in its batch: on a GPU if it was started
        `deterministic` (without: seeds are ignored there), on a CPU always, but for a draw, or a choice of
        experts, within rounding. This holds among requests that agree on whether top_p or top_k is on.
        """
        self._check(groups)
        aborted = await self._compute_prompts(groups, rid)
        asked = [group for place, group in enumerate(groups) if place not in aborted]
        answers = iter(await self._ask(generate_body(asked, rid)) if asked else [])
        return [
            [
                aborted[place] if place in aborted else parse_generation(next(answers), group.with_routing)
                for _ in group.params
            ]
            for place, group in enumerate(groups)
        ]

    def _check(self, groups: Sequence[GroupRequest]) -> None:
        limit = self.capabilities().max_request_tokens
        for group in groups:
            check_tokens(group.prompt_tokens, self.vocab_size())
            for one in group.params:
                check_length(len(group.prompt_tokens), one.max_response_tokens, limit)

    async def _compute_prompts(self, groups: Sequence[GroupRequest], rid: str | None) -> dict[int, Generation]:
        """Compute the prompts for which that pays; samples of a group that arrive together would each compute it.

        Returns:
            what the responses are of the groups, by place, whose prompts were aborted.
        """
        places = [
            place
            for place, group in enumerate(groups)
            if len(group.params) > 1 and (len(group.params) - 1) * len(group.prompt_tokens) >= self._prompt_first_tokens
        ]
        if not places:
            return {}
        answers = await self._ask(prompts_body([groups[place] for place in places], rid))
        found = {place: parse_prompt(answer) for place, answer in zip(places, answers, strict=True)}
        return {place: aborted for place, aborted in found.items() if aborted is not None}

    async def _ask(self, body: dict[str, Any]) -> Any:
        return (await self._transport.ask_async("POST", "/generate", body, self._timeouts.generate_s)).json()

    def score(self, tokens: Sequence[int]) -> list[float]:
        """Log-probability of tokens[1:], each given all before it: len(tokens) - 1 values."""
        check_tokens(tokens, self.vocab_size())
        check_length(len(tokens), 1, self.capabilities().max_request_tokens)
        body = {"input_ids": list(tokens), "return_logprob": True, "logprob_start_len": 0}
        body["sampling_params"] = {"max_new_tokens": 1, "temperature": 0.0}
        answer = self._transport.ask("POST", "/generate", body, self._timeouts.generate_s).json()
        meta = answer["meta_info"]
        return numbers([entry[0] for entry in meta["input_token_logprobs"][1:]], str(meta["weight_version"]))

    def abort(self, rid: str | None = None) -> None:
        """End one request (of one response), or with None all: they return what they have, with status ABORTED."""
        self._post("/abort_request", {"abort_all": True} if rid is None else {"rid": rid})

    # -- state ----------------------------------------------------------------------------------------------------

    def health(self) -> bool:
        """Whether the engine answers: it generates a token for it. False while it starts; raises if it is gone."""
        return self._transport.request("GET", "/health", timeout_s=self._timeouts.control_s).status_code == 200

    def wait_healthy(self, deadline_s: float, alive: Callable[[], bool] = lambda: True) -> None:
        """Return when the engine is up.

        Args:
            alive: whether its process still runs; asked between attempts.
        Raises:
            EngineDied: the process ended first.
            EngineTimeout: not up within `deadline_s`.
        """
        end = time.monotonic() + deadline_s
        last = "no attempt made"
        while (left_s := end - time.monotonic()) > 0:
            if not alive():
                raise EngineDied(f"the engine of {self.base_url} ended before it was up ({last}): see its log")
            try:
                response = self._transport.request("GET", "/health", timeout_s=min(left_s, HEALTH_S))
                if response.status_code == 200:
                    self.capabilities()
                    return
                last = f"status {response.status_code}"
            except EngineDied as error:
                last = str(error)
            time.sleep(min(POLL_S, left_s))
        raise EngineTimeout(f"the engine of {self.base_url} was not up within {deadline_s:g} s (last: {last})")

    def capabilities(self) -> Capabilities:
        """What this server can do; asked once."""
        if self._capabilities is None:
            self._capabilities = ask_capabilities(self._transport)
        return self._capabilities

    def vocab_size(self) -> int:
        """Token ids must be below it."""
        if self._vocab_size is None:
            config = Path(self.capabilities().model_dir, "config.json")
            self._vocab_size = int(decoder_config(json.loads(config.read_text()))["vocab_size"])
        return self._vocab_size

    def weight_version(self) -> str:
        """The version that the server says it has."""
        return str(self._get(self.capabilities().model_info_route)["weight_version"])

    # -- memory ---------------------------------------------------------------------------------------------------

    def release_memory(self, tags: Sequence[str] = MEMORY_TAGS) -> None:
        """Give GPU memory back. Nothing may be in flight. On a CPU engine nothing happens.

        The contents are lost, weights too: they must be sent again after `resume_memory`. Releasing twice does nothing.
        """
        wanted = [tag for tag in _known(tags) if tag not in self._released]
        if wanted:
            self._wait_idle()
            self._post("/release_memory_occupation", {"tags": wanted})
            self._released.update(wanted)

    def resume_memory(self, tags: Sequence[str] = MEMORY_TAGS) -> None:
        """Take memory that `release_memory` of this client gave back; what was not given back is left alone.

        SGLang's scheduler dies when it is asked for a tag that was not released, hence the bookkeeping.
        """
        wanted = [tag for tag in _known(tags) if tag in self._released]
        if wanted:
            self._post("/resume_memory_occupation", {"tags": wanted})
            self._released.difference_update(wanted)

    def resident_memory(self) -> frozenset[str]:
        """The tags that `release_memory` of this client has not given back."""
        return frozenset(MEMORY_TAGS) - self._released

    def _wait_idle(self) -> None:
        """Wait until the scheduler has put away its last request: it answers before that, and a release kills it."""
        end = time.monotonic() + IDLE_S
        while True:
            try:
                return self.flush_cache()
            except EngineDied:
                raise
            except EngineError:
                if time.monotonic() > end:
                    raise
            time.sleep(IDLE_POLL_S)

    def flush_cache(self) -> None:
        """Forget cached prefixes. Nothing may be in flight."""
        self._transport.ask("POST", "/flush_cache", timeout_s=self._timeouts.control_s)

    def forget_prefixes(self) -> None:
        """Flush the cache once the last request is put away. Without a KV cache there is nothing to forget: it was
        flushed as it was released.
        """
        if "kv_cache" in self.resident_memory():
            self._wait_idle()

    # -- for core.sglang.weights ----------------------------------------------------------------------------------

    def post_checked(self, path: str, body: dict[str, Any], loads: bool = False) -> dict[str, Any]:
        """POST for routes that answer {"success": bool, "message": str}.

        Args:
            loads: the engine reads files for it, which may take long.
        Raises:
            EngineError: success is false.
        """
        timeout_s = self._timeouts.load_s if loads else self._timeouts.control_s
        answer = self._transport.ask("POST", path, body, timeout_s).json()
        if not isinstance(answer, dict) or not answer.get("success"):
            raise EngineError(f"POST {self.base_url}{path}: {answer}")
        return answer

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        return self._transport.ask("POST", path, body, self._timeouts.control_s)

    def _get(self, path: str) -> dict[str, Any]:
        return dict(self._transport.ask("GET", path, timeout_s=self._timeouts.control_s).json())


def _known(tags: Sequence[str]) -> Sequence[str]:
    for tag in tags:
        if tag not in MEMORY_TAGS:
            raise ValueError(f"unknown memory tag {tag!r}: choose from {', '.join(MEMORY_TAGS)}")
    return tags
