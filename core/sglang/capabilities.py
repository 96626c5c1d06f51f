"""What a running engine can do: asked from the server, never guessed from a version."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from core.pretrained.few_bits import word_of
from core.pretrained.quantised import KEYS
from core.sglang.errors import EngineError
from core.sglang.launch import OVERRIDES, WEIGHT_LOADER
from core.sglang.transport import Transport

# SGLang tells the longest prompt: this much less than prompt and response together may be
TOKENS_BESIDE_PROMPT = 4
SERVER_INFO_ROUTES = ("/server_info", "/get_server_info")


@dataclass(frozen=True)
class Capabilities:
    """Facts about one server that stay the same while it runs.

    `max_request_tokens` bounds prompt plus response: min(context length, KV cache size) - 2. `routes` are the paths of
    its /openapi.json. `replays_weights`: it was started with our weight loader. `few_bits`: what it was started to
    compute in, by its word in `placement.engine_weights`, and is sent weights in; empty: whole ones.
    """

    version: str
    routes: frozenset[str]
    model_dir: str
    tensor_parallel: int
    max_request_tokens: int
    replays_weights: bool = False
    few_bits: str = ""

    @property
    def needs_weight_session(self) -> bool:
        """Weight updates must run between /begin_weight_update and /end_weight_update: 0.5.21 yes, 0.5.16 no."""
        return "/begin_weight_update" in self.routes

    @property
    def model_info_route(self) -> str:
        """Route that gives the weight version."""
        return first_route(self.routes, "/model_info", "/get_model_info")


def first_route(routes: frozenset[str], *candidates: str) -> str:
    """The first candidate that the server has."""
    for candidate in candidates:
        if candidate in routes:
            return candidate
    raise EngineError(
        f"the server has none of {', '.join(candidates)}: it is no SGLang server of a version this works with"
    )


def ask_capabilities(transport: Transport) -> Capabilities:
    """Ask a healthy server."""
    routes = frozenset(transport.ask("GET", "/openapi.json").json()["paths"])
    info = transport.ask("GET", first_route(routes, *SERVER_INFO_ROUTES)).json()
    return parse_capabilities(info, routes)


def parse_capabilities(info: dict[str, Any], routes: frozenset[str]) -> Capabilities:
    """Read /server_info. Pure."""
    try:
        return Capabilities(
            version=str(info["version"]),
            routes=routes,
            model_dir=str(info["model_path"]),
            tensor_parallel=int(info["tp_size"]),
            max_request_tokens=int(info["max_req_input_len"]) + TOKENS_BESIDE_PROMPT,
            replays_weights=WEIGHT_LOADER in (info.get("custom_weight_loader") or []),
            few_bits=word_of(json.loads(info.get(OVERRIDES) or "{}").get(KEYS[0])),
        )
    except (KeyError, TypeError) as error:
        raise EngineError(f"/server_info does not tell {error}: found the keys {sorted(info)}") from error
