"""A generation request and its answer, as SGLang's /generate spells them. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from core.samples import FlatRouting, SamplingParams, Status
from core.sglang.errors import EngineError, RequestRefused
from core.sglang.routed_experts import parse_routing

PROMPT_FIRST_FLOP = 1e12  # of one group: about 2.5 ms of an H100, so a dozen groups make good what the request costs
STATUS = {"stop": Status.COMPLETED, "length": Status.TRUNCATED, "abort": Status.ABORTED}


@dataclass(frozen=True)
class Generation:
    """One response.

    `logprobs[i]` is the log-probability of `tokens[i]` under softmax(logits / temperature), before top-k and top-p;
    for a greedy request (temperature 0) under softmax(logits). A stop token that ended the response is part of it.
    `routing` has the experts of the prompt's tokens and the response's but the last; None: they were not asked for, or
    the request was aborted.
    """

    tokens: list[int]
    logprobs: list[float]
    status: Status
    weight_version: str
    routing: FlatRouting | None = field(default=None, compare=False)


@dataclass(frozen=True)
class GroupRequest:
    """One prompt, and what each response to it is sampled with.

    Attributes:
        with_routing: whether the experts are wanted, too; the engine was started with `returns_routing` then.
    """

    prompt_tokens: Sequence[int]
    params: Sequence[SamplingParams]
    with_routing: bool = False


def sampling_body(params: SamplingParams) -> dict[str, Any]:
    """`sampling_params` of one request."""
    return {
        "max_new_tokens": params.max_response_tokens,
        "temperature": params.temperature,
        "top_p": params.top_p,
        "top_k": params.top_k,
        "stop_token_ids": sorted(params.stop_token_ids),
        "sampling_seed": params.seed,
    }


def generate_body(groups: Sequence[GroupRequest], rid: str | None) -> dict[str, Any]:
    """Body of one request for all responses to all prompts, group by group; experts are returned of all or of none."""
    params = [one for group in groups for one in group.params]
    body: dict[str, Any] = {
        "input_ids": [ids for group in groups for ids in [list(group.prompt_tokens)] * len(group.params)],
        "sampling_params": [sampling_body(one) for one in params],
        "return_logprob": True,
    }
    if any(group.with_routing for group in groups):
        body["return_routed_experts"] = True
    if rid is not None:
        body["rid"] = [rid] if len(params) == 1 else [f"{rid}-{index}" for index in range(len(params))]
    return body


def prompt_first_tokens(device: str, num_parameters: int) -> int:
    """Prompt tokens that a group must save for its prompt to be computed first, by a separate request.

    On a CPU any. On a GPU that request costs a forward pass over few tokens, some 30 ms of launching kernels however
    small the model; all groups in flight share it.

    Args:
        device: "cpu" or "cuda".
    """
    return 0 if device == "cpu" else int(PROMPT_FIRST_FLOP / (2 * num_parameters))


def prompts_body(groups: Sequence[GroupRequest], rid: str | None) -> dict[str, Any]:
    """Body of a request that leaves the prompts in the engine's prefix cache and generates nothing."""
    prompts = [list(group.prompt_tokens) for group in groups]
    body: dict[str, Any] = {"input_ids": prompts, "sampling_params": {"max_new_tokens": 0}}
    return body if rid is None else body | {"rid": [f"{rid}-prompt-{index}" for index in range(len(groups))]}


def parse_prompt(answer: dict[str, Any]) -> Generation | None:
    """One element of the answer to `prompts_body`: None, or what the prompt's responses are if it was aborted.

    Tokens in it mean nothing.
    """
    meta = answer["meta_info"]
    aborted = (meta.get("finish_reason") or {}).get("type") == "abort"
    return Generation([], [], Status.ABORTED, str(meta["weight_version"])) if aborted else None


def check_tokens(tokens: Sequence[int], vocab_size: int) -> None:
    """Refuse what would kill the server: SGLang looks ids up in the embedding unchecked.

    Raises:
        RequestRefused: no tokens, or one outside [0, vocab_size).
    """
    if not tokens:
        raise RequestRefused("the prompt has no tokens: at least one is needed")
    for position, token in enumerate(tokens):
        if not 0 <= token < vocab_size:
            raise RequestRefused(
                f"token id {token} at position {position} is outside the engine's vocabulary of {vocab_size}: "
                "is the tokenizer another model's?"
            )


def check_length(num_prompt_tokens: int, num_response_tokens: int, max_request_tokens: int) -> None:
    """Refuse what SGLang would cut short without saying so.

    Raises:
        RequestRefused: prompt and response together are longer than the engine can hold.
    """
    total = num_prompt_tokens + num_response_tokens
    if num_response_tokens < 1 or total > max_request_tokens:
        raise RequestRefused(
            f"{num_prompt_tokens} prompt tokens + {num_response_tokens} response tokens = {total}, but the engine "
            f"holds {max_request_tokens} per request: lower the response length, or raise "
            "placement.engine_max_total_tokens (up to the model's context length)"
        )


def parse_generation(answer: dict[str, Any], with_routing: bool = False) -> Generation:
    """One element of the server's answer.

    Raises:
        EngineError: log-probs and tokens do not belong together or are no numbers, or an unknown reason to finish; or
            experts were asked for, and are not there.
    """
    meta = answer["meta_info"]
    reason = (meta.get("finish_reason") or {}).get("type")
    if reason not in STATUS:
        raise EngineError(
            f"the engine ended a response with {meta.get('finish_reason')}: wanted one of {sorted(STATUS)}"
        )
    tokens = [int(token) for token in answer["output_ids"]]
    entries = meta.get("output_token_logprobs") or []
    if [entry[1] for entry in entries] != tokens:
        raise EngineError(f"the engine returned {len(entries)} log-probs for {len(tokens)} tokens, or for other tokens")
    version, status = str(meta["weight_version"]), STATUS[reason]
    routing = parse_routing(meta, len(tokens)) if with_routing and status is not Status.ABORTED else None
    return Generation(tokens, numbers([entry[0] for entry in entries], version), status, version, routing)


def numbers(logprobs: Sequence[float | None], version: str) -> list[float]:
    """The log-probs of an answer; JSON has null for what is no number.

    Raises:
        EngineError: some are none: the weights are broken, or the engine computes wrongly.
    """
    if lost := sum(value is None or not math.isfinite(value) for value in logprobs):
        raise EngineError(
            f"the model's logits are NaN at weights version {version}: found {lost} of {len(logprobs)} log-probs that "
            "are no numbers; wanted numbers: see whether the loss was NaN before, then go on from an earlier "
            "checkpoint with a lower train.lr; at the first version look at the checkpoint's own weights"
        )
    return [float(value) for value in logprobs if value is not None]
