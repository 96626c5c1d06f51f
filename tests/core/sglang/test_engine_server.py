"""Real servers, on a CPU: generation, control, weights."""

from __future__ import annotations

import asyncio
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file

from core.processes.children import shared_memory
from core.rollout.carried import CarryOver
from core.rollout.generate import OneTurn
from core.rollout.request import Request
from core.samples import Prompt, Sample, SamplingParams, Status
from core.sglang.client import EngineClient
from core.sglang.errors import EngineDied, EngineError, RequestRefused, WeightsRefused
from core.sglang.expected import expected_tensors
from core.sglang.generation import Generation, GroupRequest
from core.sglang.transport import Transport
from core.sglang.weights import WeightUpdate, checksums, update_from_disk
from core.weights.check import compare
from tests.support.engine_models import PROMPT, assert_close, assert_same_model, hf_logprobs, load, perturbed
from tests.support.engine_servers import RunningEngine, running_engine, start_engine, wait_ended, wait_up
from tests.support.engine_updates import updating
from tests.support.quantise import quantise
from tests.support.tiny_models import EOS_TOKEN_ID, tiny_model

pytestmark = pytest.mark.engine
LONG = SamplingParams(1500, temperature=0.0)  # greedy: these models then repeat themselves and never stop


def push(client: EngineClient, tensors: list[tuple[str, torch.Tensor]], version: str) -> None:
    """In buckets of nine."""
    with updating(client, version) as update:
        for start in range(0, len(tensors), 9):
            update.send(tensors[start : start + 9])


# -- generation and weights ------------------------------------------------------------------------------------------


def test_logprobs_are_the_models_before_and_after_updates(engine: RunningEngine, tmp_path: Path) -> None:
    """Each update is visible, complete and stamped, whichever way it comes."""
    model = load(engine.model_dir)
    update_from_disk(engine.client, engine.model_dir, "base")
    assert_same_model(engine.client, model)
    for version in ("step-1", "step-2"):
        push(engine.client, perturbed(model, len(version)), version)
        assert engine.client.weight_version() == version
        assert_same_model(engine.client, model)
    made = asyncio.run(engine.client.generate(PROMPT, SamplingParams(4)))
    assert made.weight_version == "step-2"
    perturbed(model, 3)
    model.save_pretrained(tmp_path)
    update_from_disk(engine.client, tmp_path, "disk")
    assert engine.client.weight_version() == "disk"
    assert_same_model(engine.client, model)


def test_what_its_processes_share_is_named_after_their_temporary_folder(engine: RunningEngine) -> None:
    """So that whoever finds it after a kill knows whose it was."""
    folder = Path(tempfile.gettempdir()).name
    named = [path.name for path in shared_memory(engine.process.pid) if path.name.startswith("sglang_loads_")]
    assert named
    assert all(name.startswith(f"sglang_loads_{folder}-") for name in named), named


def test_a_response_that_grows_bit_by_bit_is_what_it_would_be_at_once(engine: RunningEngine) -> None:
    """Under the same weights, with the same seed: a group of four, of which the first has come further."""

    def sampling(_group: int, index: int) -> SamplingParams:
        return SamplingParams(24, seed=index)

    asked = Request("r", [Prompt(0, "", tuple(PROMPT), None)], 4, sampling, "v", carry=CarryOver(7, 1))
    whole = asyncio.run(engine.client.generate_group(PROMPT, [sampling(0, index) for index in range(4)]))
    tokens: list[list[int]] = [whole[0].tokens[:11], [], [], []]
    logprobs = [whole[0].logprobs[:11], [], [], []]
    while begun := [index for index in range(4) if len(tokens[index]) < len(whole[index].tokens)]:
        stand = [Sample(0, one, asked.prompts[0], tokens[one], logprobs[one], Status.ABORTED, "v") for one in begun]
        (answers,) = asyncio.run(OneTurn()([replace(asked, begun={0: stand}).tasks(0)], engine.client))
        for index, answer in zip(begun, answers, strict=True):
            assert answer.task == index
            assert 0 < len(answer.tokens) <= 7
            tokens[index], logprobs[index] = tokens[index] + answer.tokens, logprobs[index] + answer.logprobs
    assert tokens == [one.tokens for one in whole]
    for one, other in zip(logprobs, whole, strict=True):
        assert_close(one, torch.tensor(other.logprobs))


def test_the_second_update_replays_the_first(engine: RunningEngine, tmp_path: Path) -> None:
    """What came from disk in between is overwritten, and a client that knows nothing of it has its way, too."""
    model = load(engine.model_dir)
    push(engine.client, perturbed(model, 11), "first")
    assert_same_model(engine.client, model)
    watched = engine.log.read_text().count(" weight_replay ")
    assert 0 < watched == engine.log.read_text().count(" why_not=\n")
    model.save_pretrained(tmp_path)
    push(engine.client, perturbed(model, 12), "second")
    assert_same_model(engine.client, model)
    update_from_disk(engine.client, tmp_path, "back")
    push(engine.client, perturbed(model, 13), "third")
    assert_same_model(engine.client, model)
    assert engine.log.read_text().count(" weight_replay ") == watched
    engine.client._capabilities = replace(engine.client.capabilities(), replays_weights=False)
    push(engine.client, perturbed(model, 14), "by SGLang's own way")
    assert_same_model(engine.client, model)
    engine.client._capabilities = replace(engine.client.capabilities(), replays_weights=True)


def test_what_is_sent_is_what_loading_brings(engine: RunningEngine, tmp_path: Path) -> None:
    """In whatever order: the same bits in the engine's memory, and the same log-probs."""
    model = load(engine.model_dir)
    push(engine.client, perturbed(model, 8)[::-1], "sent")
    found, scores = checksums(engine.client), engine.client.score(PROMPT)
    model.save_pretrained(tmp_path)
    compare(engine.spec.name, "loaded", found, update_from_disk(engine.client, tmp_path, "loaded"))
    assert engine.client.score(PROMPT) == scores
    with running_engine(tmp_path, tmp_path / "fresh.log") as fresh:
        assert checksums(fresh.client) == found
        assert fresh.client.score(PROMPT) == scores


def test_buckets_of_mixed_precision(qwen3: RunningEngine) -> None:
    model = load(qwen3.model_dir)
    tensors = perturbed(model, 4)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "mlp" in name:
                parameter.copy_(parameter.bfloat16())
    push(qwen3.client, [(name, t.bfloat16() if "mlp" in name else t) for name, t in tensors], "mixed")
    assert_same_model(qwen3.client, model)


def test_refused_weights_leave_the_engine_alive_and_marked(qwen3: RunningEngine) -> None:
    tensors = perturbed(load(qwen3.model_dir), 5)
    for bad in (
        [("model.layers.9.mlp.up_proj.weight", torch.zeros(160, 64))],
        [(tensors[0][0], torch.zeros(3, 3))],
        tensors[:-1],
    ):
        with pytest.raises(WeightsRefused), updating(qwen3.client, "bad") as update:
            update.send(bad)
        assert qwen3.client.weight_version() == "bad-incomplete"
    push(qwen3.client, tensors, "good")
    assert qwen3.client.weight_version() == "good"


SLOW_KINDS = [pytest.param(kind, marks=pytest.mark.slow) for kind in ("mimo", "minimax_m2")]


@pytest.mark.parametrize("kind", ["llama-tied", "glm4", "glm4_moe", *SLOW_KINDS])
def test_an_engine_of_two_ranks_replays(kind: str, tmp_path: Path) -> None:
    """Each rank its own parts: slices of rows, of columns, and whole tensors."""
    server = start_engine(tiny_model(kind, tmp_path / "model"), tmp_path / "tp2.log", tensor_parallel=2)
    try:
        wait_up(server)
        model = load(server.model_dir)
        for number in range(3):
            push(server.client, perturbed(model, 30 + number), f"step-{number}")
            assert_same_model(server.client, model)
        lines = [line for line in server.log.read_text().splitlines() if " weight_replay " in line]
        num_buckets = -(-len(expected_tensors(server.model_dir)) // 9)
        assert len(lines) == 2 * num_buckets  # those of the first update
        # a rank of a CPU engine pads what does not divide, with zeros: that one is loaded again
        assert len([line for line in lines if line.endswith("why_not=")]) >= num_buckets
    finally:
        server.process.kill()
        server.process.wait(30)


def test_other_models_are_not_loaded_from_disk(qwen3: RunningEngine, tmp_path: Path) -> None:
    other = tiny_model("qwen3", tmp_path, intermediate_size=192)
    with pytest.raises(WeightsRefused, match=r"wants \(64, 160\)"):
        update_from_disk(qwen3.client, other, "other")


def test_expected_tensors_are_asked_of_the_running_engine(engine: RunningEngine) -> None:
    capabilities = engine.client.capabilities()
    assert expected_tensors(capabilities.model_dir) == expected_tensors(engine.model_dir)
    assert capabilities.needs_weight_session == ("/begin_weight_update" in capabilities.routes)
    assert capabilities.max_request_tokens == 2048 - 2


def test_refused_requests_leave_the_engine_alive(qwen3: RunningEngine) -> None:
    for prompt, num_tokens in (([512], 4), ([], 4), (PROMPT, 2048)):
        with pytest.raises(RequestRefused):
            asyncio.run(qwen3.client.generate(prompt, SamplingParams(num_tokens)))
    made = asyncio.run(qwen3.client.generate(PROMPT, SamplingParams(4)))
    assert len(made.tokens) in range(1, 5)


def test_longest_request_is_not_cut_short(qwen3: RunningEngine) -> None:
    room = qwen3.client.capabilities().max_request_tokens
    prompt = [3 + i % 500 for i in range(room - 5)]
    made = asyncio.run(qwen3.client.generate(prompt, SamplingParams(5, temperature=0.0)))
    assert (len(made.tokens), made.status) == (5, Status.TRUNCATED)


def test_status_and_stop_tokens(qwen3: RunningEngine) -> None:
    first = asyncio.run(qwen3.client.generate(PROMPT, SamplingParams(8, temperature=0.0)))
    assert (first.status, len(first.tokens)) == (Status.TRUNCATED, 8)
    stop = first.tokens[2]
    params = SamplingParams(8, temperature=0.0, stop_token_ids=(stop,))
    stopped = asyncio.run(qwen3.client.generate(PROMPT, params))
    assert stopped.status is Status.COMPLETED
    assert stopped.tokens == first.tokens[: first.tokens.index(stop) + 1]  # the stop token is part of it


def test_end_token_of_the_model_stops(qwen3: RunningEngine) -> None:
    params = [SamplingParams(400, seed=seed) for seed in range(16)]
    made = asyncio.run(qwen3.client.generate_group(PROMPT, params))
    for one in made:
        assert (one.status is Status.COMPLETED) == (one.tokens[-1] == EOS_TOKEN_ID)
    assert any(one.status is Status.COMPLETED for one in made)


def test_logprobs_at_another_temperature_are_of_the_scaled_distribution(qwen3: RunningEngine) -> None:
    """Before top-p and top-k; and a greedy request's are unscaled."""
    model = load(qwen3.model_dir)
    update_from_disk(qwen3.client, qwen3.model_dir, "base")
    for params, temperature in (
        (SamplingParams(20, temperature=0.5, seed=1), 0.5),
        (SamplingParams(20, temperature=1.0, top_p=0.5, top_k=20, seed=1), 1.0),
        (SamplingParams(20, temperature=0.0), 1.0),
    ):
        made = asyncio.run(qwen3.client.generate(PROMPT, params))
        assert_close(made.logprobs, hf_logprobs(model, PROMPT + made.tokens, temperature)[len(PROMPT) - 1 :])


def test_prompt_of_a_group_is_computed_once(qwen3: RunningEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[Any] = []

    async def ask(self: Transport, *asked: Any) -> Any:
        answers.append(await ask_async(self, *asked))
        return answers[-1]

    ask_async = Transport.ask_async
    monkeypatch.setattr(Transport, "ask_async", ask)
    qwen3.client.flush_cache()
    asyncio.run(qwen3.client.generate_group(PROMPT, [SamplingParams(3, seed=seed) for seed in range(5)]))
    (prompt,), group = (answer.json() for answer in answers)
    assert prompt["meta_info"]["cached_tokens"] == 0
    # the last token of a prompt is computed for each response: it tells the first one of that
    assert [one["meta_info"]["cached_tokens"] for one in group] == [len(PROMPT) - 1] * 5


def test_groups_of_one_request_are_answered_as_they_would_be_alone(engine: RunningEngine) -> None:
    update_from_disk(engine.client, engine.model_dir, "base")
    prompts = (PROMPT, PROMPT[:3], [20, 21, 22, 23])
    sizes = (3, 1, 4)
    groups = [
        GroupRequest(prompt, [SamplingParams(6 + index, seed=10 * size + index) for index in range(size)])
        for prompt, size in zip(prompts, sizes, strict=True)
    ]
    together = asyncio.run(engine.client.generate_groups(groups))
    for group, made in zip(groups, together, strict=True):
        alone = asyncio.run(engine.client.generate_group(group.prompt_tokens, group.params))
        assert [one.tokens for one in made] == [one.tokens for one in alone]
        for one, other in zip(made, alone, strict=True):
            assert_close(one.logprobs, torch.tensor(other.logprobs))


# -- seeds -----------------------------------------------------------------------------------------------------------


async def crowd(client: EngineClient, wanted: SamplingParams) -> Generation:
    """One request among others that come, run and go around it."""
    others = [SamplingParams(5 + 7 * i, seed=1000 + i) for i in range(8)]
    before = asyncio.create_task(client.generate_group([11, 12, 13], others))
    made = asyncio.create_task(client.generate_group(PROMPT, [others[3], wanted, others[5]]))
    after = asyncio.create_task(client.generate_group(PROMPT[:4], others))
    await asyncio.gather(before, made, after)
    return made.result()[1]


def test_samples_depend_on_their_seed_only(engine: RunningEngine) -> None:
    """Alone, again, and among others."""
    update_from_disk(engine.client, engine.model_dir, "base")
    for params in (SamplingParams(60, seed=7), SamplingParams(60, temperature=1.3, seed=2**31 - 1)):
        alone = asyncio.run(engine.client.generate(PROMPT, params))
        for other in (engine.client.generate(PROMPT, params), crowd(engine.client, params)):
            made = asyncio.run(other)
            assert made.tokens == alone.tokens
            assert_close(made.logprobs, torch.tensor(alone.logprobs))


def test_samples_are_the_same_on_a_fresh_server(qwen3: RunningEngine, tmp_path: Path) -> None:
    """Also on one whose files are quantised: it computes with whole weights, which it is sent."""
    whole = tiny_model("qwen3", tmp_path / "whole")
    quantise(whole, tmp_path / "quantised", "fp8")
    update_from_disk(qwen3.client, whole, "base")
    seeds = [SamplingParams(12, seed=seed) for seed in range(20)]
    group = asyncio.run(qwen3.client.generate_group(PROMPT, seeds))
    assert len({tuple(one.tokens) for one in group}) == 20
    with running_engine(tmp_path / "quantised", tmp_path / "fresh.log") as fresh:
        push(fresh.client, list(load_file(whole / "model.safetensors").items()), "sent")
        again = asyncio.run(fresh.client.generate_group(PROMPT, seeds))
        assert [one.tokens for one in again] == [one.tokens for one in group]
        found = checksums(fresh.client)
        compare(fresh.spec.name, "loaded", found, update_from_disk(fresh.client, whole, "loaded"))
        check_death(fresh)


def test_samples_follow_the_distribution(qwen3: RunningEngine) -> None:
    """Over seeds the first token is distributed as the model says."""
    update_from_disk(qwen3.client, qwen3.model_dir, "base")
    number = 1024
    made = asyncio.run(qwen3.client.generate_group(PROMPT, [SamplingParams(1, seed=seed) for seed in range(number)]))
    with torch.no_grad():
        wanted = torch.softmax(load(qwen3.model_dir)(torch.tensor([PROMPT])).logits[0, -1], -1)
    found = torch.bincount(torch.tensor([one.tokens[0] for one in made]), minlength=512) / number
    rarest = wanted.argsort()[:384]  # a share that a wrong sampler would get wrong
    for some in (rarest, wanted.argsort()[-8:]):
        share = float(wanted[some].sum())
        assert abs(float(found[some].sum()) - share) < 4 * (share * (1 - share) / number) ** 0.5


# -- control ---------------------------------------------------------------------------------------------------------


async def until_done(task: asyncio.Task[Generation], act: Any, deadline_s: float = 60.0) -> Generation:
    """Repeat `act` until the request returns: it may come before the request has reached the server."""
    end = time.monotonic() + deadline_s
    while not task.done():
        assert time.monotonic() < end, f"still running after {deadline_s:g} s"
        await asyncio.to_thread(act)
        await asyncio.wait([task], timeout=0.2)
    return task.result()


@pytest.mark.parametrize("rid", ["one-request", None], ids=["one", "all"])
def test_abort_returns_what_there_is(qwen3: RunningEngine, rid: str | None) -> None:
    async def scenario() -> Generation:
        task = asyncio.create_task(qwen3.client.generate(PROMPT, LONG, rid))
        return await until_done(task, lambda: qwen3.client.abort(rid))

    made = asyncio.run(scenario())
    assert made.status is Status.ABORTED
    assert len(made.tokens) == len(made.logprobs) < LONG.max_response_tokens


def test_memory_calls_change_nothing_on_a_cpu(qwen3: RunningEngine) -> None:
    client = qwen3.client
    before = client.score(PROMPT)
    client.release_memory(["kv_cache"])
    client.release_memory()
    client.resume_memory(["weights"])
    client.resume_memory()
    client.flush_cache()
    assert client.health()
    assert client.score(PROMPT) == before


def test_key_is_needed_and_nowhere_to_be_read(qwen3: RunningEngine) -> None:
    api_key = qwen3.spec.api_key
    assert api_key
    with pytest.raises(EngineError, match="401"):
        EngineClient(qwen3.client.base_url, vocab_size=512).abort()
    assert api_key not in qwen3.log.read_text()
    family = [psutil.Process(qwen3.process.pid), *psutil.Process(qwen3.process.pid).children(recursive=True)]
    assert not any(api_key in word for process in family for word in process.cmdline())


# -- death -----------------------------------------------------------------------------------------------------------


def check_death(engine: RunningEngine) -> None:
    """Kill -9 in the middle of a request: the caller hears of it, and no process of the server stays."""
    family = psutil.Process(engine.process.pid).children(recursive=True)
    assert len(family) >= 2, "wanted a scheduler and a detokenizer"

    async def scenario() -> None:
        task = asyncio.create_task(engine.client.generate(PROMPT, LONG))
        while "Decode batch" not in engine.log.read_text().rsplit("/server_info", 1)[-1]:
            assert not task.done()
            await asyncio.sleep(0.02)
        engine.process.kill()
        with pytest.raises(EngineDied):
            await task

    asyncio.run(asyncio.wait_for(scenario(), 60))
    wait_ended(family)
    with pytest.raises(EngineDied):
        engine.client.health()
    with pytest.raises(EngineDied):
        WeightUpdate(engine.client, "v").begin()
