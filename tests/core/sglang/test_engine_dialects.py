"""The client against stand-in servers: routes of SGLang 0.5.16 and 0.5.21, and failures."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import httpx
import pytest
import torch

from core.samples import SamplingParams, Status
from core.sglang.client import EngineClient, Timeouts
from core.sglang.errors import EngineDied, EngineError, EngineTimeout, RequestRefused, WeightsRefused
from core.sglang.generation import GroupRequest, prompt_first_tokens
from core.sglang.weights import WeightUpdate
from tests.support.engine_updates import SendingUpdate, updating

SHAPES = {"a.weight": (2, 3), "b.weight": (3,)}
COMMON = [
    "/generate",
    "/health",
    "/model_info",
    "/server_info",
    "/update_weights_from_tensor",
    "/update_weight_version",
]
DIALECTS = {"0.5.16": COMMON, "0.5.21": [*COMMON, "/begin_weight_update", "/end_weight_update"]}


class StandIn:
    """Answers like a server of one dialect and remembers what it was asked."""

    def __init__(self, version: str) -> None:
        self.version = version
        self.weight_version = "default"
        self.asked: list[tuple[str, Any]] = []
        self.refuse: set[str] = set()
        self.refuse_once: set[str] = set()
        self.stamps = True

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        body = json.loads(request.content) if request.content else None
        if path == "/openapi.json":
            return httpx.Response(200, json={"paths": {route: {} for route in DIALECTS[self.version]}})
        if path == "/server_info":
            info = {"version": self.version, "model_path": "/nowhere", "tp_size": 2, "max_req_input_len": 96}
            return httpx.Response(200, json=info)
        if path == "/model_info":
            return httpx.Response(200, json={"weight_version": self.weight_version})
        self.asked.append((path, body))
        if path in self.refuse | self.refuse_once:
            self.refuse_once.discard(path)
            return httpx.Response(400, json={"success": False, "message": "no, because"})
        if path == "/update_weight_version":
            self.weight_version = body["new_version"]
        message = "ok"
        if self.stamps and body and "weight_version" in body:
            self.weight_version = body["weight_version"]
            message = f"ok Weight version updated to {self.weight_version}."
        return httpx.Response(200, json={"success": True, "message": message})

    def paths(self) -> list[str]:
        return [path for path, _ in self.asked]


def client_of(handler: Any, **options: Any) -> EngineClient:
    return EngineClient("http://engine", vocab_size=512, mock=httpx.MockTransport(handler), **options)


def tensors() -> list[tuple[str, torch.Tensor]]:
    return [("a.weight", torch.ones(2, 3)), ("b.weight", torch.ones(3, dtype=torch.bfloat16))]


@pytest.mark.parametrize("version", DIALECTS)
def test_update_in_both_dialects(version: str) -> None:
    server = StandIn(version)
    with updating(client_of(server), "step-3", SHAPES) as update:
        assert server.weight_version == "step-3-incomplete"
        for one in tensors():
            update.send([one])
    session = version == "0.5.21"
    assert server.paths() == [
        "/update_weight_version",
        "/flush_cache",
        *(["/begin_weight_update"] if session else []),
        "/update_weights_from_tensor",
        "/update_weights_from_tensor",
        *(["/end_weight_update", "/update_weight_version"] if session else []),  # else: stamped with the last bucket
    ]
    sent = dict(server.asked)["/update_weights_from_tensor"]
    assert len(sent["serialized_named_tensors"]) == 2  # one for each tensor-parallel rank
    assert server.weight_version == "step-3"


def test_a_server_that_does_not_stamp_is_told_the_version() -> None:
    server = StandIn("0.5.16")
    server.stamps = False
    with updating(client_of(server), "v", SHAPES) as update:
        update.send(tensors())
    assert server.paths()[-2:] == ["/update_weights_from_tensor", "/update_weight_version"]
    assert server.weight_version == "v"


def test_only_the_last_bucket_stamps_and_only_if_it_is_taken() -> None:
    server = StandIn("0.5.16")
    update = SendingUpdate(client_of(server), "v", SHAPES)
    update.begin()
    update.send(tensors()[:1])
    assert server.weight_version == "v-incomplete"
    server.refuse.add("/update_weights_from_tensor")
    with pytest.raises(EngineError, match="no, because"):
        update.send(tensors()[1:])
    assert server.weight_version == "v-incomplete"


def test_prefixes_are_forgotten_when_the_last_request_is_put_away() -> None:
    server = StandIn("0.5.21")
    server.refuse_once.add("/flush_cache")
    WeightUpdate(client_of(server), "v", SHAPES).begin()
    assert server.paths() == ["/update_weight_version", "/flush_cache", "/flush_cache", "/begin_weight_update"]


def test_without_a_kv_cache_there_are_no_prefixes() -> None:
    server = StandIn("0.5.21")
    client = client_of(server)
    client.release_memory(["kv_cache"])
    server.asked.clear()
    WeightUpdate(client, "v", SHAPES).begin()
    assert server.paths() == ["/update_weight_version", "/begin_weight_update"]


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("a.wait", torch.ones(2, 3), "no weight a.wait: did you mean a.weight"),
        ("a.weight", torch.ones(3, 2), r"shape \(3, 2\), but the engine's model wants \(2, 3\)"),
        ("a.weight", torch.ones(2, 3, dtype=torch.int64), "dtype int64, wanted one of float32"),
    ],
    ids=["name", "shape", "dtype"],
)
def test_refused_tensors_are_not_sent(name: str, tensor: torch.Tensor, message: str) -> None:
    server = StandIn("0.5.21")
    update = SendingUpdate(client_of(server), "v", SHAPES)
    update.begin()
    with pytest.raises(WeightsRefused, match=message):
        update.send([(name, tensor)])
    assert "/update_weights_from_tensor" not in server.paths()


def test_incomplete_and_repeated_updates_are_refused() -> None:
    server = StandIn("0.5.21")
    with (
        pytest.raises(WeightsRefused, match=r"1 of 2 tensors were not sent: b\.weight"),
        updating(client_of(server), "v", SHAPES) as update,
    ):
        update.send(tensors()[:1])
    assert server.paths()[-1] == "/end_weight_update"  # the session is not left open
    assert server.weight_version == "v-incomplete"
    with (
        pytest.raises(WeightsRefused, match=r"a\.weight was sent twice"),
        updating(client_of(server), "v", SHAPES) as update,
    ):
        update.send(tensors() + tensors())
    assert server.paths()[-1] == "/end_weight_update"
    assert server.weight_version == "v-incomplete"


class Generating:
    """Answers a request for prompts alone, and one for groups with one token per sample: the prompt's first."""

    def __init__(self, version: str, prompt_tokens: list[int], prompt_ends: Sequence[str] = ("length",)) -> None:
        self.others = StandIn(version)
        self.prompt_tokens, self.prompt_ends = prompt_tokens, prompt_ends
        self.asked: list[Any] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path != "/generate":
            return self.others(request)
        body = json.loads(request.content)
        self.asked.append(body)
        if isinstance(body["sampling_params"], dict):
            ends = [{"finish_reason": {"type": end}, "weight_version": "3"} for end in self.prompt_ends]
            return httpx.Response(200, json=[{"output_ids": self.prompt_tokens, "meta_info": meta} for meta in ends])
        return httpx.Response(200, json=[self.sample(prompt[0]) for prompt in body["input_ids"]])

    def sample(self, token: int) -> dict[str, Any]:
        meta = {"finish_reason": {"type": "length"}, "weight_version": "3"}
        return {"output_ids": [token], "meta_info": meta | {"output_token_logprobs": [[-0.5, token, None]]}}


def test_group_whose_prompt_was_aborted_is_not_asked_for() -> None:
    engine = Generating("0.5.21", [], ["abort"])
    made = asyncio.run(client_of(engine).generate_group([1, 2], [SamplingParams(4)] * 3, "group"))
    assert [one["rid"] for one in engine.asked] == [["group-prompt-0"]]
    assert [(one.status, one.tokens) for one in made] == [(Status.ABORTED, [])] * 3


def test_groups_of_one_request_come_back_in_order_but_for_those_whose_prompt_was_aborted() -> None:
    """The second is of one sample, whose prompt needs no request of its own; the third is aborted."""
    engine = Generating("0.5.21", [], ["length", "abort", "length"])
    sizes = {11: 2, 12: 1, 13: 2, 14: 3}
    groups = [GroupRequest([token, 1], [SamplingParams(1)] * size) for token, size in sizes.items()]
    made = asyncio.run(client_of(engine).generate_groups(groups))
    assert [[one.tokens for one in group] for group in made] == [[[11]] * 2, [[12]], [[]] * 2, [[14]] * 3]
    assert [one.status for one in made[2]] == [Status.ABORTED] * 2
    prompts, samples = (one["input_ids"] for one in engine.asked)
    assert prompts == [[11, 1], [13, 1], [14, 1]]
    assert samples == [[11, 1]] * 2 + [[12, 1]] + [[14, 1]] * 3


def test_token_that_a_server_makes_of_a_prompt_is_not_looked_at() -> None:
    """SGLang samples one token of every prefill; which versions then hide it is their affair."""
    made = asyncio.run(client_of(Generating("0.5.16", [7])).generate_group([1, 2], [SamplingParams(1)] * 2))
    assert [one.tokens for one in made] == [[1], [1]]


@pytest.mark.parametrize(("least", "requests"), [(0, 2), (6, 2), (7, 1)])
def test_prompt_is_asked_for_first_if_that_saves_enough(least: int, requests: int) -> None:
    """Three samples, three prompt tokens: six of nine are saved."""
    engine = Generating("0.5.21", [])
    client = client_of(engine, prompt_first_tokens=least)
    made = asyncio.run(client.generate_group([1, 2, 3], [SamplingParams(1)] * 3))
    assert [one.tokens for one in made] == [[1]] * 3
    assert len(engine.asked) == requests


def test_large_models_share_short_prompts_on_a_gpu_and_all_do_on_a_cpu() -> None:
    assert prompt_first_tokens("cpu", 10**6) == 0
    assert prompt_first_tokens("cuda", 135 * 10**6) == 3703
    assert prompt_first_tokens("cuda", 4 * 10**9) == 125


def test_session_left_open_by_a_dead_driver_is_closed() -> None:
    server = StandIn("0.5.21")
    server.refuse_once.add("/begin_weight_update")
    with updating(client_of(server), "v", SHAPES) as update:
        update.send(tensors())
    assert server.paths()[2:5] == ["/begin_weight_update", "/end_weight_update", "/begin_weight_update"]
    assert server.weight_version == "v"


def test_server_that_refuses_a_bucket() -> None:
    server = StandIn("0.5.16")
    server.refuse.add("/update_weights_from_tensor")
    update = SendingUpdate(client_of(server), "v", SHAPES)
    update.begin()
    with pytest.raises(EngineError, match="no, because"):
        update.send(tensors())


def test_server_that_forgets_its_version() -> None:
    server = StandIn("0.5.16")
    update = SendingUpdate(client_of(lambda request: _forgetful(server, request)), "v", SHAPES)
    update.begin()
    update.send(tensors())
    with pytest.raises(EngineError, match="reports weight version default, wanted v"):
        update.end()


def _forgetful(server: StandIn, request: httpx.Request) -> httpx.Response:
    response = server(request)
    server.weight_version = "default"
    return response


def test_memory_is_resumed_only_if_released() -> None:
    server = StandIn("0.5.21")
    client = client_of(server)
    client.resume_memory(["weights"])
    client.release_memory()
    client.release_memory(["weights"])
    client.resume_memory(["weights"])
    client.resume_memory()
    assert server.asked.pop(0)[0] == "/flush_cache"  # it is idle before it releases
    assert [(path.split("_")[0], body["tags"]) for path, body in server.asked] == [
        ("/release", ["weights", "kv_cache", "cuda_graph"]),
        ("/resume", ["weights"]),
        ("/resume", ["kv_cache", "cuda_graph"]),
    ]
    with pytest.raises(ValueError, match="unknown memory tag 'kv'"):
        client.release_memory(["kv"])


def test_nothing_refused_reaches_the_server() -> None:
    server = StandIn("0.5.21")
    client = client_of(server)
    for prompt, length in (([512], 1), ([1] * 50, 51)):
        with pytest.raises(RequestRefused):
            asyncio.run(client.generate(prompt, SamplingParams(length)))
    assert server.asked == []


def fail_with(error: type[httpx.TransportError]) -> Any:
    def handler(request: httpx.Request) -> httpx.Response:
        raise error("stand-in", request=request)

    return handler


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        (httpx.ConnectError, EngineDied),
        (httpx.RemoteProtocolError, EngineDied),
        (httpx.ReadError, EngineDied),
        (httpx.ReadTimeout, EngineTimeout),
    ],
)
def test_transport_errors(error: type[httpx.TransportError], wanted: type[EngineDied]) -> None:
    with pytest.raises(wanted, match="http://engine/health"):
        client_of(fail_with(error)).health()


def test_wait_healthy_says_how_it_ended() -> None:
    client = client_of(fail_with(httpx.ConnectError), timeouts=Timeouts(control_s=1))
    with pytest.raises(EngineDied, match="ended before it was up"):
        client.wait_healthy(60, alive=lambda: False)
    with pytest.raises(EngineTimeout, match=r"not up within 0\.3 s .*stand-in"):
        client.wait_healthy(0.3)


def test_key_and_other_servers() -> None:
    seen: list[str | None] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers.get("authorization"))
        return httpx.Response(200, json={"paths": {"/hello": {}}})

    with pytest.raises(EngineError, match="none of /server_info, /get_server_info"):
        client_of(handler, api_key="k").capabilities()
    assert seen == ["Bearer k"]
