"""A user's own generation: a file outside the package, in processes that may hang or die."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from core.checks import check_run_file
from core.config import RunFileError
from core.config.sections.rollout import RolloutConfig
from core.pretrained.tokenizer import load_tokenizer
from core.processes.user_process import WorkerStartError
from core.rollout import own, worker_process
from core.rollout.generate import Answer
from core.rollout.own import OwnGeneration, usual_workers
from core.rollout.seeds import turn_seed
from core.rollout.task import Task
from core.samples import SamplingParams, Status
from core.sglang.errors import EngineDied, RequestRefused
from core.sglang.generation import Generation
from core.trajectory import evaluation_path, read_step, step_path
from tests.support.tiny_models import EXPERTS
from tests.support.tiny_runs import ebbtide, events, write_run

DOORS_PAGE = Path(__file__).parents[2] / "docs" / "doors.md"
VOCAB_SIZE = 100
MOST_TOKENS = 12
AGENT = '''
import asyncio, os, signal, sys, time
from dataclasses import replace

from ebbtide import Response


async def once(task, engine):
    turn = await engine.generate(task.prompt_tokens)
    return Response(turn.tokens, turn.logprobs, status=turn.status)


async def two_samples(task, engine):
    shorter = replace(task.sampling, max_response_tokens=2)
    turns = await asyncio.gather(*(engine.generate(task.prompt_tokens, shorter) for _ in range(2)))
    return [Response.of(turn, extra={"which": which}) for which, turn in enumerate(turns)]


async def dialogue(task, engine, reply=(7, 8, 9)):
    said = list(task.prompt_tokens)
    first = await engine.generate(said, replace(task.sampling, max_response_tokens=2))
    said += [*first.tokens, *reply]
    second = await engine.generate(said, replace(task.sampling, max_response_tokens=3))
    return Response.of(first, list(reply), second)


async def behave(task, engine):
    """As the row's label says, if this is its first sample."""
    made = await once(task, engine)
    if task.index:
        return made
    tokens, logprobs = list(made.tokens), list(made.logprobs)
    return await {
        "": lambda: ready(made),
        "raise": lambda: fails({}),
        "exit": lambda: ready(sys.exit("done here")),
        "refused": lambda: refused(engine),
        "empty": lambda: ready([]),
        "number": lambda: ready(3),
        "vocabulary": lambda: ready(Response([*tokens, 100], [*logprobs, 0.0])),
        "negative": lambda: ready(Response([-1], [0.0])),
        "logprobs": lambda: ready(Response(tokens, logprobs[1:])),
        "mask": lambda: ready(Response(tokens, logprobs, [1])),
        "zeros": lambda: ready(Response(tokens, logprobs, [0] * len(tokens))),
        "twos": lambda: ready(Response(tokens, logprobs, [2] * len(tokens))),
        "nan": lambda: ready(Response(tokens, [float("nan")] * len(tokens))),
        "infinite": lambda: ready(Response(tokens, [float("-inf")] * len(tokens))),
        "long": lambda: ready(Response([1] * 13, [0.0] * 13)),
        "nothing": lambda: ready(Response([], [])),
        "text": lambda: ready(Response(["a"], [0.0])),
        "extra": lambda: ready(Response(tokens, logprobs, extra={"what": object()})),
        "waits": lambda: waits(),
        "swallows": lambda: swallows(),
        "spins": lambda: spins(),
        "dies": lambda: dies(),
        "forges": lambda: forges(),
    }[task.label]()


async def ready(made):
    return made


async def fails(row):
    return row["no such key"]


async def refused(engine):
    await engine.generate([10_000])


async def waits():
    await asyncio.sleep(1000)


async def swallows():
    while True:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            pass


async def spins():
    await asyncio.sleep(0.05)
    time.sleep(1000)


async def dies():
    await asyncio.sleep(0.05)
    os.kill(os.getpid(), signal.SIGSEGV)


async def forges():
    for number in map(int, os.listdir("/proc/self/fd")):
        if number > 2 and os.path.realpath(f"/proc/self/fd/{number}").startswith("/proc"):  # a socket, among others
            try:
                os.write(number, bytes([ord("["), 10]))
            except OSError:
                pass
    time.sleep(1000)


async def environment(task, engine):
    seen = {name: value for name, value in os.environ.items()}
    return Response([1], [0.0], extra={"environment": seen, "files": sorted(os.listdir("/proc/self/fd"))})


async def tells(task, engine):
    turn = await engine.generate(task.prompt_tokens)
    row = [task.prompt_text, task.row, task.label, dict(task.metadata)]
    place = [task.group, task.index, task.step, task.evaluation]
    return Response(turn.tokens, turn.logprobs, extra={"task": row + place, "turn": [turn.text, turn.weight_version]})


async def with_options(task, engine, *, word, temperature):
    return Response([1], [0.0], extra={"word": word, "temperature": temperature})


def plain(task, engine):
    return None


class Counts:
    def __init__(self, start):
        self.count = start

    async def __call__(self, task, engine):
        self.count += 1
        return Response([self.count], [0.0])
'''


class FakeEngine:
    """Answers with the request's seed modulo 50 as every token."""

    def __init__(self) -> None:
        self.asked: list[tuple[list[int], SamplingParams]] = []
        self.dies_at = -1
        self.at_once = self.most_at_once = 0

    def vocab_size(self) -> int:
        return VOCAB_SIZE

    async def generate(self, tokens: Sequence[int], params: SamplingParams, **_how: bool) -> Generation:
        if len(self.asked) == self.dies_at:
            raise EngineDied("its process is gone")
        if max(tokens) >= VOCAB_SIZE:
            raise RequestRefused(f"token id {max(tokens)} is outside the vocabulary")
        self.asked.append((list(tokens), params))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0.02)
        self.at_once -= 1
        made = [params.seed % 50] * min(3, params.max_response_tokens)
        return Generation(made, [-0.5] * len(made), Status.COMPLETED, "step4")


def task(index: int = 0, label: str = "", group: int = 0) -> Task:
    sampling = SamplingParams(MOST_TOKENS, stop_token_ids=(2,), seed=100 * group + index)
    return Task((3, 4), "say it", 17 + group, label, {"level": {1}}, sampling, group, index, step=5)


def decode(tokens: Sequence[int]) -> str:
    return " ".join(map(str, tokens))


def build(agent: Path, function: str, with_routing: bool = False, **keys: Any) -> OwnGeneration:
    basics = {"num_rollout": 1, "rollout_batch_size": 1, "generate_timeout_s": 60.0}
    config = RolloutConfig.model_validate({**basics, "generate": f"{agent}:{function}", **keys})
    return OwnGeneration(config, None, decode, with_routing=with_routing)


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("user") / "agent.py"
    path.write_text(AGENT)
    return path


@pytest.fixture(scope="module")
def behaves(agent: Path) -> Iterator[OwnGeneration]:
    """One process for all functions that do no harm to it."""
    with build(agent, "behave") as made:
        yield made


def line_of(text: str) -> int:
    return next(number for number, line in enumerate(AGENT.splitlines(), start=1) if text in line)


def answers(made: OwnGeneration, *tasks: Task, engine: Any = None) -> list[Answer]:
    (found,) = asyncio.run(made([tasks], engine or FakeEngine()))
    return found


class RoutedEngine(FakeEngine):
    """Tells of experts, if it is asked: each token's is its place."""

    async def generate(self, tokens: Sequence[int], params: SamplingParams, **how: bool) -> Generation:
        made = await super().generate(tokens, params)
        places = np.arange(len(tokens) + len(made.tokens) - 1, dtype="uint8")
        return replace(made, routing=places[:, None] if how["with_routing"] else None)


@pytest.mark.parametrize(("function", "known"), [("dialogue", [9]), ("two_samples", [3, 3])])
def test_experts_of_a_response_are_put_together_by_the_places_of_its_tokens(
    agent: Path, function: str, known: list[int]
) -> None:
    """In training only; the last token of a response is never fed. Two turns, with others' tokens between them."""
    with build(agent, function, with_routing=True) as made:
        for found, tokens in zip(answers(made, task(), engine=RoutedEngine()), known, strict=True):
            assert found.routing is not None
            assert found.routing.tolist() == [[place] for place in range(tokens)]
        found = answers(made, replace(task(), evaluation="held out"), engine=RoutedEngine())
        assert [one.routing for one in found] == [None] * len(known)


def test_one_turn_is_asked_for_and_answered_as_the_built_in_does(behaves: OwnGeneration) -> None:
    engine = FakeEngine()
    found = answers(behaves, *(task(index) for index in range(8)), engine=engine)
    assert [(one.task, one.tokens, one.logprobs) for one in found] == [(i, [i] * 3, [-0.5] * 3) for i in range(8)]
    assert {one.weight_version for one in found} == {"step4"}
    assert sorted(params.seed for _, params in engine.asked) == list(range(8))
    assert all(asked == ([3, 4], task(asked[1].seed).sampling) for asked in engine.asked)
    assert engine.most_at_once > 4  # one process has many under way


@pytest.mark.parametrize(
    ("label", "found", "line"),
    [
        ("raise", "KeyError: 'no such key'", 'row["no such key"]'),
        ("exit", "SystemExit: done here", "sys.exit"),
        ("refused", "ValueError: token id 10000 is outside the vocabulary", "engine.generate([10_000])"),
        ("empty", "an empty list; wanted at least one Response", "async def behave"),
        ("number", "TypeError: found a int; wanted a Response or a list of Responses", "async def behave"),
        ("vocabulary", "token id 100 at position 3; wanted ids in [0, 100)", "async def behave"),
        ("negative", "token id -1 at position 0; wanted ids in [0, 100)", "async def behave"),
        ("logprobs", "2 logprobs for 3 tokens; wanted one for each", "async def behave"),
        ("mask", "1 loss_mask for 3 tokens; wanted one for each", "async def behave"),
        ("zeros", "a loss_mask of [0]; wanted 0 and 1, and 1 at the model's own tokens", "async def behave"),
        ("twos", "a loss_mask of [2]; wanted 0 and 1", "async def behave"),
        ("nan", "log-prob nan at position 0; wanted finite numbers", "async def behave"),
        ("infinite", "log-prob -inf at position 0; wanted finite numbers", "async def behave"),
        ("long", "13 tokens; wanted 1 to 12 in the whole response", "async def behave"),
        ("nothing", "0 tokens; wanted 1 to 12 in the whole response", "async def behave"),
        ("text", "ValueError: invalid literal for int()", "async def behave"),
        ("extra", "a builtins.object cannot be sent to another process", "async def behave"),
    ],
)
def test_a_bad_one_is_a_failed_sample_and_the_others_are_made(
    behaves: OwnGeneration, label: str, found: str, line: str
) -> None:
    failed, fine = answers(behaves, task(0, label), task(1, label))
    assert (failed.task, failed.tokens, failed.status) == (0, [], Status.FAILED)
    text = str(failed.failure)
    assert found in text
    assert f"(agent.py:{line_of(line)} in " in text
    assert "; row 17, sample 0" in text
    assert fine.failure is None
    assert fine.tokens == [1, 1, 1]


@pytest.mark.parametrize(
    ("label", "found", "line"),
    [
        ("waits", "no response within 1.5 s (rollout.generate_timeout_s): at agent.py:{} in waits", "async def waits"),
        ("swallows", "and its process hung for 0.3 s more and was killed (agent.py:{} in behave)", "async def behave"),
        ("spins", "and its process hung for 0.3 s more and was killed (agent.py:{} in behave)", "async def behave"),
        ("dies", "its process died of SIGSEGV (agent.py:{} in behave)", "async def behave"),
        ("forges", "its process wrote what cannot be read", "async def behave"),
    ],
)
def test_one_that_hangs_or_dies_fails_alone(
    agent: Path, label: str, found: str, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of its process begin again in another one, where the next ones find it, too."""
    monkeypatch.setattr(worker_process, "GRACE_S", 0.3)
    number = line_of(line) + (label == "waits")
    with build(agent, "behave", generate_timeout_s=1.5) as made:  # the others have to be done within it
        for _ in range(2):
            failed, *fine = answers(made, *(task(index, label) for index in range(6)))
            assert found.format(number) in str(failed.failure)
            assert "row 17, sample 0" in str(failed.failure)
            assert [one.tokens for one in fine] == [[index] * 3 for index in range(1, 6)]


def test_one_that_only_waits_while_another_blocks_is_not_taken_for_it(
    agent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its time is over first; the other is what the process hangs in. Each fails with its own reason."""
    monkeypatch.setattr(worker_process, "GRACE_S", 0.3)
    with build(agent, "behave", generate_timeout_s=1.5) as made:
        groups = [[task(0, "waits", 0)], [task(0, "spins", 1)], [task(1, "", 2)]]
        (waits,), (spins,), (fine,) = asyncio.run(made(groups, FakeEngine()))
    assert f"at agent.py:{line_of('async def waits') + 1} in waits; row 17" in str(waits.failure)
    assert "and its process hung for 0.3 s more" in str(spins.failure)
    assert "; row 18" in str(spins.failure)
    assert fine.failure is None


def test_a_task_during_which_processes_die_of_nobodys_code_fails_in_the_end(agent: Path) -> None:
    """As when the kernel takes memory back: nobody knows whose it was."""
    engine = FakeEngine()
    with build(agent, "once") as made:

        async def generate(tokens: Sequence[int], params: SamplingParams, **_how: bool) -> Generation:
            (place,) = made._workers._places
            assert place.worker is not None
            engine.asked.append((list(tokens), params))
            while any(os.pread(place.worker._note.fileno(), 8, 0)):  # code of the task still runs
                await asyncio.sleep(0.01)
            psutil.Process(place.worker._process.pid).kill()
            await asyncio.sleep(1000)
            raise AssertionError

        engine.generate = generate  # type: ignore[method-assign]
        (failed,) = answers(made, task(), engine=engine)
        assert "its process died of SIGKILL, 3 times with this task under way; row 17" in str(failed.failure)
        assert len(engine.asked) == 3
        assert answers(made, task(1))[0].tokens == [1, 1, 1]


def test_the_time_of_the_engine_is_not_the_tasks_but_no_turn_begins_after_it(agent: Path) -> None:
    engine = FakeEngine()
    slow = engine.generate

    async def generate(tokens: Sequence[int], params: SamplingParams, **_how: bool) -> Generation:
        await asyncio.sleep(1.0)
        return await slow(tokens, params)

    engine.generate = generate  # type: ignore[method-assign]
    with build(agent, "dialogue", generate_timeout_s=0.5) as made:
        (failed,) = answers(made, task(), engine=engine)
    assert "no response within 0.5 s (rollout.generate_timeout_s)" in str(failed.failure)
    assert len(engine.asked) == 1


def test_samples_of_one_task(agent: Path) -> None:
    with build(agent, "two_samples") as made:
        found = answers(made, task(0), task(1))
    assert [(one.task, dict(one.extra)) for one in found] == [(i, {"which": which}) for i in (0, 1) for which in (0, 1)]
    seeds = [[index, turn_seed(index, 1)] for index in (0, 1)]
    assert [one.tokens for one in found] == [[seed % 50] * 2 for pair in seeds for seed in pair]


def test_a_dialogue_masks_what_the_model_did_not_say(agent: Path) -> None:
    engine = FakeEngine()
    with build(agent, "dialogue", generate_options={"reply": [60, 61]}) as made:
        (found,) = answers(made, task(3), engine=engine)
    then = turn_seed(3, 1) % 50
    assert found.tokens == [3, 3, 60, 61, then, then, then]
    assert found.loss_mask == [1, 1, 0, 0, 1, 1, 1]
    assert found.logprobs == [-0.5, -0.5, 0.0, 0.0, -0.5, -0.5, -0.5]
    assert [tokens for tokens, _ in engine.asked] == [[3, 4], [3, 4, 3, 3, 60, 61]]


def test_an_engine_that_dies_is_the_rounds_affair_and_what_it_left_is_dropped(agent: Path) -> None:
    engine = FakeEngine()
    engine.dies_at = 3
    with build(agent, "dialogue") as made:
        with pytest.raises(EngineDied):
            answers(made, *(task(index) for index in range(4)), engine=engine)
        assert [one.failure for one in answers(made, *(task(index) for index in range(4)))] == [None] * 4


def test_what_a_task_knows(agent: Path) -> None:
    with build(agent, "tells") as made:
        (found,) = answers(made, task(2, "label", group=1))
    wanted = ["say it", 18, "label", {"level": {1}}, 1, 2, 5, ""]
    assert found.extra == {"task": wanted, "turn": ["2 2 2", "step4"]}


def test_a_worker_has_neither_the_runs_key_nor_other_files_than_its_own(
    agent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EBBTIDE_API_KEY", "secret of the run")
    monkeypatch.setenv("EBBTIDE_ENGINE_API_KEY", "secret of the run")
    monkeypatch.setenv("SEEN", "yes")
    held = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(held, True)
    with build(agent, "environment") as made:
        (found,) = answers(made, task())
        environ = psutil.Process(made._workers._places[0].worker._process.pid).environ()  # type: ignore[union-attr]
    os.close(held)
    assert found.extra["environment"]["SEEN"] == "yes"
    assert "secret of the run" not in {*found.extra["environment"].values(), *environ.values()}
    assert str(held) not in found.extra["files"]


def test_options_settings_and_objects(agent: Path) -> None:
    with build(agent, "with_options", generate_options={"word": "hi"}, temperature=0.7) as made:
        assert answers(made, task())[0].extra == {"word": "hi", "temperature": 0.7}
    with build(agent, "Counts", generate_options={"start": 4}) as made:
        assert [answers(made, task())[0].tokens for _ in range(2)] == [[5], [6]]


@pytest.mark.parametrize(
    ("function", "options", "words"),
    [
        ("plain", {}, ["agent.py:", "in plain, a plain function; wanted async def generate(task, engine)"]),
        ("nobody", {}, ["nothing named nobody in", "agent.py"]),
        ("once", {"word": 1}, ["rollout.generate_options that", "does not take"]),
    ],
)
def test_one_that_cannot_be_loaded_is_refused_at_the_start(
    agent: Path, function: str, options: dict[str, Any], words: list[str]
) -> None:
    with (
        pytest.raises(WorkerStartError, match="a generation worker cannot be started") as caught,
        build(agent, function, generate_options=options),
    ):
        pass
    assert all(word in str(caught.value) for word in words), caught.value


def test_processes_end_with_their_owner(agent: Path) -> None:
    with build(agent, "once", generate_workers=3) as made:
        answers(made, *(task(index) for index in range(9)))
        pids = [place.worker._process.pid for place in made._workers._places if place.worker]
        assert len(set(pids)) == 3
    assert not [pid for pid in pids if psutil.pid_exists(pid)]


def test_the_example_of_the_page_makes_a_dialogue(tmp_path: Path) -> None:
    section = DOORS_PAGE.read_text().partition("## Generation")[2].partition("\n## ")[0]
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    file = tmp_path / "second_thought.py"
    file.write_text(code.replace("engine.encode(question)", "list(question.encode())"))  # no model here
    with build(file, "generate", generate_options={"question": " ?"}) as made:
        (found,) = answers(made, task(4))
    assert found.failure is None
    assert found.loss_mask == [1, 1, 1, 0, 0, 1, 1, 1]
    assert found.tokens[3:5] == [32, 63]
    assert found.extra == {"first_answer": "4 4 4"}


def test_more_groups_than_fit_are_under_way(agent: Path) -> None:
    made = build(agent, "once")
    assert made.width(64, 2, 4, False) == (8, 1)
    assert made.width(3, 2, 4, True) == (2, 1)
    assert own.MORE_THAN_FIT == 2


EPISODES = '''
from dataclasses import replace
from ebbtide import Environment, Heard, Response
from core.rollout.dialogue import Dialogue


class Nods(Environment):
    """Says what the reply says, three times."""

    def __init__(self, reply):
        self.reply, self.count = reply, 0

    def reset(self, task):
        return None

    def step(self, action):
        self.count += 1
        return self.reply, 0.25 * self.count, self.count == 3


async def episode(task, engine, *, reply):
    """Two samples of the prompt; or a dialogue by hand, or the built-in one; row 5 is beyond it."""
    if task.row == 5 and not task.evaluation and task.index == 3:
        raise RuntimeError(f"row {task.row} is beyond me")
    if task.index % 2:
        return [Response.of(await engine.generate(task.prompt_tokens)) for _ in range(2)]
    if task.index == 2:
        return await Dialogue(f"{__file__}:Nods", {"reply": reply})(task, engine)
    first = await engine.generate(task.prompt_tokens, replace(task.sampling, max_response_tokens=4))
    said = engine.after(first.tokens, [{"role": "user", "content": reply}])
    again = [*task.prompt_tokens, *first.tokens, *said]
    left = task.sampling.max_response_tokens - len(first.tokens) - len(said)
    second = await engine.generate(again, replace(task.sampling, max_response_tokens=left))
    return Response.of(first, Heard(said), second, extra={"turns": [first.text, second.text]})


async def again(task, engine, *, times):
    """Several samples of a prompt of one set."""
    assert task.evaluation == "again"
    return [Response.of(await engine.generate(task.prompt_tokens)) for _ in range(times)]
'''
REWARD = '''
def reward(sample):
    """Of turns, if the generation told them."""
    turns = sample.metadata.get("turns", [sample.response_text])
    return (sum(sum(map(ord, turn)) for turn in turns) % 101) / 100
'''


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three steps and two evaluations with a user's own generation, through a real engine."""
    folder = tmp_path_factory.mktemp("own")
    rollout = {
        "num_rollout": 3,
        "max_response_tokens": 48,
        "stop_token_ids": list(range(3, 131)),  # so that turns are short
        "generate": "agent.py:episode",
        "generate_options": {"reply": "no, again"},
    }
    rows = {"path": "data.jsonl", "max_prompt_tokens": 64, "size": 3}
    again = {"generate": "agent.py:again", "generate_options": {"times": 2}}
    held_out = {"sets": {"held": rows, "plain": {**rows, "generate": "one_turn"}, "again": {**rows, **again}}}
    algorithm = {"kl_loss_coef": 0.01, "routing_replay": "engine"}
    path = write_run(folder, kind=EXPERTS, rollout=rollout, eval=held_out, algorithm=algorithm)
    (folder / "agent.py").write_text(EPISODES)
    (folder / "reward.py").write_text(REWARD)
    done = ebbtide("run", str(path), "--run-dir", str(folder / "out"))
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "out"


@pytest.mark.run
def test_a_run_learns_from_dialogues_and_from_several_samples_of_a_task(run_dir: Path) -> None:
    reply = load_tokenizer(run_dir.parent / "model").encode("\nuser: no, again\nassistant:")
    failed = []
    num_turns = []
    for step in range(3):
        record = read_step(step_path(run_dir, step))
        assert record.task is not None
        failed += [text for text in record.failure if text]
        tasks = list(zip(record.group.tolist(), record.task.tolist(), strict=True))
        assert len(set(tasks)) == 16
        assert record.index.tolist() == [place for g in range(4) for place in range(tasks_of(tasks, g))]
        for place, (_, number) in enumerate(tasks):
            if record.failure[place]:
                continue
            mask = record.loss_mask[place].tolist()
            tokens = record.response_tokens[place].tolist()
            assert tasks.count(tasks[place]) == 1 + number % 2
            heard = [token for token, said in zip(tokens, mask, strict=True) if not said]
            spans = record.spans(place)
            assert heard == reply * (len(spans) // 2)
            assert len(tokens) <= 48
            if number != 2:
                assert len(spans) == (1 if number % 2 else 3)
            else:
                num_turns.append(len(spans))
                given = [0.25, None, 0.5, None, 0.75][: len(spans)]
                assert [span.reward for span in spans][:-1] == given[:-1]
                assert spans[-1].reward in ((given[-1], None) if record.status[place] == "truncated" else given[-1:])
            for span in spans:
                own = span.role == "assistant"
                assert set(mask[span.start : span.end]) == {int(own)}
                assert span.weight_version == (f"step{step}" if own else "")
            if number % 2 and tasks[place - 1] == tasks[place]:
                assert tokens != record.response_tokens[place - 1].tolist()
            counts = record.loss_mask[place] == 1
            gap = np.abs(record.logprobs_old[place] - record.logprobs_engine[place])[counts]
            assert gap.mean() < 1e-5, (step, place)
            assert (record.logprobs_engine[place][~counts] == 0).all()
    assert max(num_turns) == 5
    assert len(failed) == 1
    assert "RuntimeError: row 5 is beyond me (agent.py:24 in episode); row 5, sample 3" in failed[0]


def tasks_of(tasks: list[tuple[int, int]], group: int) -> int:
    """How many samples a group has."""
    return sum(one == group for one, _ in tasks)


@pytest.mark.run
def test_experts_come_with_dialogues_up_to_the_last_turn(run_dir: Path) -> None:
    """Turn by turn they are those of the trainer's own routers, so no token has another's."""
    for event in events(run_dir, "step"):
        record = read_step(step_path(run_dir, event["step"]))
        assert record.routing is not None
        assert event["metrics"]["train/routing_agreement_first"] > 0.999
        for place in range(len(record)):
            if record.failure[place]:
                assert record.routing.lengths[place] == 0
                continue
            last = [span for span in record.spans(place) if span.role == "assistant"][-1]
            assert record.routing.lengths[place] == record.prompt_tokens.lengths[place] + last.end - 1


@pytest.mark.run
def test_an_evaluation_uses_the_same_door(run_dir: Path) -> None:
    evaluations = events(run_dir, "eval")
    assert [event["step"] for event in evaluations] == [0, 3]
    assert all({"accuracy", "reward"} <= set(event["results"]["held"]) for event in evaluations)


@pytest.mark.run
def test_a_set_is_answered_by_its_own_generation(run_dir: Path) -> None:
    held, plain, again = (read_step(evaluation_path(run_dir, name, 3)) for name in ("held", "plain", "again"))
    assert [len(held.spans(place)) for place in range(3)] == [3, 3, 3]
    assert (len(plain), plain.turns, set(plain.failure)) == (3, None, {""})
    assert (again.row.tolist(), set(again.failure)) == ([0, 0, 1, 1, 2, 2], {""})


@pytest.mark.run
def test_a_reward_is_that_of_the_turns(run_dir: Path) -> None:
    record = read_step(step_path(run_dir, 0))
    decode = load_tokenizer(run_dir.parent / "model").decode
    for place in range(len(record)):
        if record.failure[place]:
            continue
        assert record.task is not None
        spans = [span for span in record.spans(place) if span.role == "assistant"]
        assert [span.text for span in spans] == [decode(record.response_tokens[place][s.start : s.end]) for s in spans]
        text = record.response_text[place] if record.task[place] == 2 else "".join(span.text for span in spans)
        assert record.reward[place] == pytest.approx((sum(map(ord, text)) % 101) / 100)


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"generate": "agent.py:episode", "generate_options": {"reply": "no"}}, []),
        (
            {"generate": "one_turns"},
            ["'one_turns'; wanted one of one_turn, dialogue, rows, or module.py:function", "did you mean"],
        ),
        ({"generate": "agent.py:episodes"}, ["no episodes in", "did you mean episode?"]),
        ({"generate": "agent.py:episode"}, ["no reply; wanted all that", "add reply"]),
        ({"generate_options": {"reply": "no"}}, ["the option reply; wanted no options, as one_turn takes none"]),
        ({"generate": "agent.py:plain"}, ["def plain in line 43 of", "wanted async def"]),
        ({"generate": "agent.py:Plain"}, ["def __call__ in line 48 of", "wanted async def"]),
        ({"generate": "agent.py:one"}, ["one of", "with (task)"]),
    ],
)
def test_what_a_login_node_says(changes: dict[str, Any], wanted: list[str], tmp_path: Path) -> None:
    path = write_run(tmp_path, rollout=changes)
    more = "def plain(task, engine):\n    pass\n\n\nclass Plain:\n    def __call__(self, task, engine):\n        pass\n"
    (tmp_path / "agent.py").write_text(f"{EPISODES}\n\n{more}\n\nasync def one(task):\n    pass\n")
    mistakes = []
    try:
        check_run_file(path, ())
    except RunFileError as error:
        mistakes = [str(one) for one in error.mistakes]
    assert len(mistakes) == bool(wanted), mistakes
    assert all(text in mistakes[0] for text in wanted), mistakes


@pytest.mark.parametrize(("prompts", "cores", "workers"), [(8, 2, 1), (64, 32, 4), (64, 8, 2), (1000, 128, 32)])
def test_processes_by_the_samples_of_a_step(
    prompts: int, cores: int, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: set(range(cores)))
    section = RolloutConfig(num_rollout=1, rollout_batch_size=prompts, n_samples_per_prompt=8)
    assert usual_workers(section) == workers
