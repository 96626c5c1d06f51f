"""The pool against reward functions that misbehave, in real processes."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from core.config.sections.reward import RewardConfig
from core.processes.user_process import WorkerStartError
from core.reward import RewardInput, RewardPool, Score

FUNCTION = f"{Path(__file__).parents[2] / 'support' / 'reward_functions.py'}:behave"
DEADLINE_S = 180.0


def config(timeout_s: float = 30.0, num_workers: int = 1) -> RewardConfig:
    return RewardConfig(type="python", path=FUNCTION, timeout_s=timeout_s, num_workers=num_workers)


def replace_section(section: RewardConfig, **changes: Any) -> RewardConfig:
    return section.model_copy(update=changes)


def response(text: str) -> RewardInput:
    return RewardInput("prompt", text, label=None, metadata={"level": 1})


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"still not after {DEADLINE_S} s: {what}"
        time.sleep(0.02)


def worker_pids(pool: RewardPool) -> list[int]:
    """The scoring processes of now."""
    return [slot.worker.pid for slot in pool._slots if slot.worker is not None]


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


@pytest.fixture(scope="module")
def pool() -> Iterator[RewardPool]:
    with RewardPool(config()) as pool:
        yield pool


@pytest.mark.parametrize(
    ("value", "wanted"),
    [("1", 1.0), ("-2.5", -2.5), ("True", 1.0), ("np.float32(0.5)", 0.5), ("np.bool_(1)", 1.0), ("1e300", 1e300)],
)
def test_numbers(pool: RewardPool, value: str, wanted: float) -> None:
    assert pool.score([response(f"value {value}")]) == [Score(wanted)]


def test_functions_that_await_fork_or_spawn(pool: RewardPool) -> None:
    texts = ["await 0.5", "fork", "value 2", "fork", "value 3", "spawn", "await 0.25"]
    assert [score.value for score in pool.score([response(text) for text in texts])] == [0.5, 1, 2, 1, 3, 5, 0.25]


def test_all_that_is_known_of_a_sample_arrives(pool: RewardPool) -> None:
    sample = replace(
        response("value sample.num_prompt_tokens + sample.truncated + sample.messages[0]['number'] + sample.step"),
        messages=[{"role": "user", "content": "say", "number": 100}],
        num_prompt_tokens=1000,
        truncated=True,
        step=10,
    )
    assert pool.score([sample]) == [Score(1111.0)]


def test_the_penalty_on_long_responses() -> None:
    mine = config().model_copy(update={"overlong_buffer_tokens": 10, "overlong_penalty": 0.5})
    with RewardPool(mine) as pool:
        long = replace(response("value 1"), num_response_tokens=100, max_response_tokens=100)
        assert pool.score([long, response("value 1")]) == [Score(0.5), Score(1.0)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param(
            "raise", ["IndexError: list index out of range", "reward_functions.py:", "in <lambda>"], id="raises"
        ),
        pytest.param("exit", ["SystemExit: done here"], id="exits"),
        pytest.param("value float('nan')", ["the reward is nan; wanted a finite number"], id="NaN"),
        pytest.param("value -float('inf')", ["the reward is -inf"], id="infinite"),
        pytest.param("value 10**400", ["OverflowError"], id="too big"),
        pytest.param("value 'yes'", ["the reward is a str ('yes'); wanted a number"], id="text"),
        pytest.param("value None", ["the reward is a NoneType"], id="None"),
        pytest.param("value np.zeros(2)", ["the reward is a ndarray"], id="array"),
        pytest.param(
            "value {'right': 1.0}",
            ["the reward is a mapping of right; wanted the key reward (reward.key) among them"],
            id="not the key",
        ),
        pytest.param("value {'reward': 1, 'brief': inf}", ["brief: the reward is inf"], id="a part is infinite"),
        pytest.param("value {'reward': {'reward': 1}}", ["reward: the reward is a dict"], id="a mapping in a mapping"),
        pytest.param("value {'reward': 1, 'a/b': 1}", ["a mapping with the key 'a/b'; wanted a name"], id="a name"),
        pytest.param("value dict.fromkeys(map(str, range(17)), 1)", ["17 keys; wanted at most 16"], id="many parts"),
        pytest.param("die SIGSEGV", ["the reward worker died of SIGSEGV"], id="killed by a signal"),
        pytest.param("leave", ["the reward worker ended with exit code 3"], id="process left"),
    ],
)
def test_failures_are_named_and_the_next_sample_is_scored(pool: RewardPool, text: str, words: list[str]) -> None:
    failed, fine = pool.score([response(text), response("value 1")])
    assert failed.value is None
    assert all(word in str(failed.failure) for word in words), failed.failure
    assert fine == Score(1.0)


def test_of_a_mapping_of_numbers_one_counts_and_all_are_kept(pool: RewardPool) -> None:
    (score,) = pool.score([response("value {'reward': np.float32(0.5), 'right': True}")])
    assert score == Score(0.5, None, {"reward": 0.5, "right": 1.0})
    of_sets = {"easy": replace_section(config(), key="right")}
    mapping = response("value {'reward': 0.5, 'right': 1, 'total': 7}")
    section = replace_section(config(), key="total", overlong_buffer_tokens=1, overlong_penalty=2.0)
    with RewardPool(section, of_sets) as other:
        found = other.score([replace(mapping, num_response_tokens=4, max_response_tokens=4)])
        found += other.score([replace(mapping, evaluation="easy")])
    assert [one.value for one in found] == [5.0, 1.0]
    assert found[0].parts == found[1].parts == {"reward": 0.5, "right": 1.0, "total": 7.0}


def test_long_messages_are_cut(pool: RewardPool) -> None:
    (score,) = pool.score([response("value 'x' * 10_000")])
    assert len(str(score.failure)) < 700


def test_sample_that_cannot_travel_fails(pool: RewardPool) -> None:
    (score,) = pool.score([RewardInput("", "value 1", label=threading.Lock())])
    assert "cannot be sent to a reward worker" in str(score.failure)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param("pickle.dumps(Bomb(TARGET))", id="a pickle that would run code"),
        pytest.param("b'[0, 1.0, null]' * 2", id="two answers in one"),
        pytest.param("b'[' * 100_000", id="nested without end"),
        pytest.param("b'[0, 1' + b'0' * 400 + b', null]'", id="a number that is too big"),
        pytest.param("b''", id="empty"),
    ],
)
def test_what_a_function_writes_to_the_socket_is_never_unpickled(pool: RewardPool, answer: str, tmp_path: Path) -> None:
    answer = answer.replace("TARGET", repr(str(tmp_path / "ran")))
    forged, fine = pool.score([response(f"forge {answer}"), response("value 1")])
    assert "the reward worker's answer cannot be read" in str(forged.failure)
    assert not (tmp_path / "ran").exists()
    assert fine == Score(1.0)


def test_a_reward_function_does_not_see_the_keys_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EBBTIDE_API_KEY", "secret")
    monkeypatch.setenv("EBBTIDE_OTHER", "kept")
    with RewardPool(config()) as pool:
        seen = "value {v: 1 for v in __import__('os').environ.values()}"
        assert pool.score([response(f"{seen}.get('kept')"), response(f"{seen}.get('secret', 0)")]) == [
            Score(1.0),
            Score(0.0),
        ]


def test_plain_labels_and_metadata_arrive_as_they_are(pool: RewardPool) -> None:
    label, metadata = (1, {2: "zwei"}, b"x"), {"when": dt.date(2026, 1, 2), "among": {3, 4}, "\ud800": float("inf")}
    check = f"value 1.0 * (sample.label == {label!r} and sample.metadata == {metadata!r})".replace("datetime.", "dt.")
    assert pool.score([RewardInput("", check, label, metadata)]) == [Score(1.0)]


def test_workers_import_no_torch_and_score_in_the_main_thread(pool: RewardPool) -> None:
    assert pool.score([response("modules"), response("main-thread")]) == [Score(0.0), Score(1.0)]


def test_hanging_function_is_killed_with_its_children(tmp_path: Path) -> None:
    with RewardPool(config(timeout_s=2.0)) as pool:
        hung, fine = pool.score([response(f"hang {tmp_path / 'pids'}"), response("value 1")])
    limit = "no reward within 2 s (reward.timeout_s); the worker was killed"
    assert hung.failure is not None
    assert hung.failure.startswith(f"{limit}, in its first call: what is imported in a call counts")
    assert fine == Score(1.0)
    for pid in map(int, (tmp_path / "pids").read_text().split()):
        wait_until(lambda pid=pid: gone(pid), f"process {pid} gone")  # type: ignore[misc]


def test_worker_that_dies_between_samples_costs_no_sample(pool: RewardPool) -> None:
    (pid,) = worker_pids(pool)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: gone(pid), "the worker dead")
    assert pool.score([response("value 1")]) == [Score(1.0)]
    assert worker_pids(pool) != [pid]


def test_order_is_kept_over_several_workers() -> None:
    with RewardPool(config(num_workers=2)) as pool:
        scores = pool.score([response(f"value {i}") for i in range(50)])
    assert scores == [Score(float(i)) for i in range(50)]


def test_scoring_from_coroutines_in_a_thread(pool: RewardPool) -> None:
    async def gather() -> list[Score]:
        return await asyncio.gather(*(asyncio.wrap_future(pool.submit(response(f"value {i}"))) for i in range(10)))

    found: list[Score] = []
    thread = threading.Thread(target=lambda: found.extend(asyncio.run(gather())))
    thread.start()
    thread.join(DEADLINE_S)
    assert found == [Score(float(i)) for i in range(10)]


def test_closing_ends_a_hanging_sample_and_leaves_no_process(tmp_path: Path) -> None:
    with RewardPool(config(timeout_s=1000.0)) as pool:
        pids = worker_pids(pool)
        hung, queued = pool.submit(response(f"hang {tmp_path / 'pids'}")), pool.submit(response("value 1"))
        wait_until((tmp_path / "pids").exists, "the function hangs")
    assert "closed" in str(hung.result(0).failure)
    assert "closed" in str(queued.result(0).failure)
    assert all(not psutil.pid_exists(pid) for pid in pids)
    pool.close()
    with pytest.raises(RuntimeError, match="not open"):
        pool.submit(response("value 1"))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        pytest.param({"type": "python", "path": "no.py:f"}, "no file 'no.py'", id="no file"),
        pytest.param({"type": "regex"}, "no reward.pattern", id="no pattern"),
        pytest.param({"type": "python", "path": "{tmp}/leaves.py:f"}, "ended with exit code 5", id="dies at import"),
    ],
)
def test_unusable_section_is_refused_at_the_start(fields: dict[str, str], words: str, tmp_path: Path) -> None:
    (tmp_path / "leaves.py").write_text("import os\nos._exit(5)\n")
    reward = RewardConfig(**{key: value.format(tmp=tmp_path) for key, value in fields.items()})
    with pytest.raises(WorkerStartError, match=words), RewardPool(reward):
        pass


OWNER = """
import sys, time
from core.config.sections.reward import RewardConfig
from core.reward import RewardInput, RewardPool
pool = RewardPool(RewardConfig(type="python", path=sys.argv[1], timeout_s=1000))
pool.__enter__()
pool.submit(RewardInput("", "hang " + sys.argv[2]))
print(*(slot.worker.pid for slot in pool._slots), flush=True)
if sys.argv[3] == "wait":
    time.sleep(1000)
"""


@pytest.mark.parametrize("ending", ["killed", "returns"])
def test_workers_die_with_their_owner(ending: str, tmp_path: Path) -> None:
    """Neither kill -9 nor an end without close() leaves a worker, and the end is not waited for."""
    command = [sys.executable, "-c", OWNER, FUNCTION, str(tmp_path / "pids"), "wait" if ending == "killed" else "-"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        (pid,) = map(int, owner.stdout.readline().split())
        if ending == "killed":
            owner.kill()
        owner.wait(DEADLINE_S)
    wait_until(lambda: gone(pid), f"worker {pid} gone")
    if (tmp_path / "pids").exists():  # the function's own child has no parent to die with: end it here
        for child in (tmp_path / "pids").read_text().split()[1:]:
            os.kill(int(child), signal.SIGKILL)
