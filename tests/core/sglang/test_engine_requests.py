"""What is refused before it reaches the server, and how answers are read."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest

from core.samples import SamplingParams, Status
from core.sglang.errors import EngineError, RequestRefused
from core.sglang.generation import GroupRequest, check_length, check_tokens, generate_body, parse_generation


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([], "no tokens"),
        ([1, 512], "token id 512 at position 1 is outside the engine's vocabulary of 512"),
        ([-1], "token id -1"),
    ],
    ids=["empty", "too-large", "negative"],
)
def test_refused_tokens(tokens: list[int], message: str) -> None:
    with pytest.raises(RequestRefused, match=message):
        check_tokens(tokens, 512)


def test_refused_length() -> None:
    check_length(10, 90, 100)
    with pytest.raises(RequestRefused, match="10 prompt tokens \\+ 91 response tokens = 101, but the engine holds 100"):
        check_length(10, 91, 100)
    with pytest.raises(RequestRefused, match="0 response tokens"):
        check_length(10, 0, 100)


def test_body_of_a_group() -> None:
    params = [SamplingParams(8, top_p=0.9, stop_token_ids=(9, 3), seed=seed) for seed in (5, 6)]
    body = generate_body([GroupRequest((1, 2), params)], "g")
    assert body["input_ids"] == [[1, 2], [1, 2]]
    assert body["rid"] == ["g-0", "g-1"]
    assert body["sampling_params"][1] == {
        **{"max_new_tokens": 8, "temperature": 1.0, "top_p": 0.9, "top_k": -1, "stop_token_ids": [3, 9]},
        "sampling_seed": 6,
    }


def test_body_of_several_groups_names_the_samples_of_the_first_before_those_of_the_next() -> None:
    groups = [GroupRequest((n,), [SamplingParams(n, seed=10 * n + index) for index in range(2)]) for n in (1, 2)]
    body = generate_body(groups, None)
    assert body["input_ids"] == [[1], [1], [2], [2]]
    assert [one["sampling_seed"] for one in body["sampling_params"]] == [10, 11, 20, 21]
    assert [one["max_new_tokens"] for one in body["sampling_params"]] == [1, 1, 2, 2]
    assert "rid" not in body


def answer(reason: str, **meta: Any) -> dict[str, Any]:
    made = {"finish_reason": {"type": reason}, "weight_version": "v", "output_token_logprobs": [[-0.5, 4, None]]}
    return {"output_ids": [4], "meta_info": made | meta}


@pytest.mark.parametrize(
    ("reason", "status"), [("stop", Status.COMPLETED), ("length", Status.TRUNCATED), ("abort", Status.ABORTED)]
)
def test_status(reason: str, status: Status) -> None:
    made = parse_generation(answer(reason))
    assert (made.tokens, made.logprobs, made.status, made.weight_version) == ([4], [-0.5], status, "v")


def test_answers_that_do_not_fit_are_errors() -> None:
    with pytest.raises(EngineError, match="wanted one of"):
        parse_generation(answer("tired"))
    with pytest.raises(EngineError, match="log-probs"):
        parse_generation(answer("stop", output_token_logprobs=[[-0.5, 5, None]]))
    with pytest.raises(EngineError, match="0 log-probs for 1 tokens"):
        parse_generation(answer("stop", output_token_logprobs=None))


@pytest.mark.parametrize("lost", [None, float("nan")])
def test_logits_that_are_no_numbers_are_told_with_their_version(lost: float | None) -> None:
    """JSON has null for NaN."""
    broken = answer("stop", output_token_logprobs=[[-0.5, 4, None], [lost, 5, None]]) | {"output_ids": [4, 5]}
    with pytest.raises(EngineError, match="logits are NaN at weights version v: found 1 of 2 log-probs"):
        parse_generation(broken)


def routed(experts: Any, **changes: Any) -> dict[str, Any]:
    """An answer of 1 token to a prompt of 3."""
    text = base64.b64encode(np.asarray(experts, "<i4").tobytes()).decode()
    return answer("stop", **{"routed_experts": text, "prompt_tokens": 3, **changes})


@pytest.mark.parametrize(("highest", "kind"), [(255, "uint8"), (256, "int16")])
def test_experts_come_with_a_response_that_asks_for_them(highest: int, kind: str) -> None:
    """3 tokens were fed, in 2 layers with 2 experts each."""
    experts = [[[1, 2], [0, highest]], [[3, 4], [5, 6]], [[7, 0], [1, 2]]]
    made = parse_generation(routed(experts), with_routing=True)
    assert made.routing is not None
    assert (made.routing.dtype, made.routing.tolist()) == (kind, np.reshape(experts, (3, 4)).tolist())
    assert parse_generation(routed(experts)).routing is None, "nobody has asked"
    body = generate_body([GroupRequest((1,), [SamplingParams(1)]), GroupRequest((2,), [SamplingParams(1)], True)], None)
    assert body["return_routed_experts"] is True
    assert "return_routed_experts" not in generate_body([GroupRequest((1,), [SamplingParams(1)])], None)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"routed_experts": None}, "no experts with a response"),
        ({"routed_experts": "?"}, "experts that cannot be read"),
        ({"routed_experts": "AAA="}, "experts that cannot be read"),
        ({"prompt_tokens": 7}, "12 experts for 7 tokens; wanted equally many for each"),
    ],
)
def test_experts_that_are_missing_or_of_other_tokens_are_errors(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(EngineError, match=words):
        parse_generation(routed(np.zeros((3, 2, 2)), **changes), with_routing=True)
    aborted = routed(np.zeros((3, 2, 2)), **changes, finish_reason={"type": "abort"})
    assert parse_generation(aborted, with_routing=True).routing is None
