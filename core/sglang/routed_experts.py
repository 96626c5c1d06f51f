"""Experts in the answer of an engine, as SGLang (0.5.21) spells them. Pure.

`meta_info.routed_experts` is base64 of int32 [tokens, layers, experts of a token], of the whole prompt, also where a
cache had it, and of the response but its last token, which was never fed. In layers without experts it has zeros.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

import numpy as np

from core.samples import BYTE, FlatRouting
from core.sglang.errors import EngineError


def parse_routing(meta: Mapping[str, Any], num_response_tokens: int) -> FlatRouting:
    """[prompt + response - 1, L x k] of a response.

    Raises:
        EngineError: it is not there, or of another number of tokens.
    """
    text, rows = meta.get("routed_experts"), int(meta.get("prompt_tokens", 0)) + num_response_tokens - 1
    if not text:
        raise EngineError(
            "the engine returned no experts with a response: its SGLang has no enable_return_routed_experts, or its "
            "model none (algorithm.routing_replay)"
        )
    try:
        flat = np.frombuffer(base64.b64decode(text, validate=True), "<i4")
    except (ValueError, TypeError, binascii.Error) as error:
        raise EngineError(f"the engine returned experts that cannot be read: {error}") from error
    if rows < 1 or len(flat) == 0 or len(flat) % rows:
        raise EngineError(f"the engine returned {len(flat)} experts for {rows} tokens; wanted equally many for each")
    number = np.uint8 if flat.max() < BYTE else np.int16
    return flat.reshape(rows, -1).astype(number)
