"""Rewards from other nodes: real servers that answer, die, hang and come back."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from core.processes.rendezvous import Member
from core.reward import RewardInput, RewardsUnavailable, Score, remote_dispatch, remote_servers
from core.reward.remote import RemoteRewardPool
from tests.support.reward_servers import KEY, WrittenDirectory, restarted, running_servers, write_run_file
from tests.support.waiting import wait_until

START_S = 180.0


def response(text: str) -> RewardInput:
    return RewardInput("prompt", text, label=(1, {2: "two"}), metadata={"level": 1})


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RemoteRewardPool]:
    """Two servers of two workers each."""
    run_dir = write_run_file(tmp_path_factory.mktemp("rewards"), num_workers=2)
    with running_servers(run_dir, 2) as servers:
        directory = WrittenDirectory([server.member for server in servers])
        with RemoteRewardPool(directory, KEY, START_S) as pool:
            assert set(directory.ready) == set(directory.members)  # whichever answers first
            yield pool


def test_scores_in_order_and_failures_with_their_reasons(pool: RemoteRewardPool) -> None:
    found = pool.score([response(f"value {i}") for i in range(100)])
    assert found == [Score(float(i)) for i in range(100)]
    raised, fine = pool.score([response("raise"), response("value 0.1")])
    assert "IndexError: list index out of range" in str(raised.failure)
    assert fine == Score(0.1)
    assert pool.score([response("value {'reward': 1, 'right': 0.5}")]) == [
        Score(1.0, None, {"reward": 1, "right": 0.5})
    ]


def test_label_and_metadata_arrive_as_they_were(pool: RemoteRewardPool) -> None:
    text = "value " + "sample.label == (1, {2: 'two'}) and sample.metadata == {'level': 1}"
    assert pool.score([response(text)]) == [Score(1.0)]


def test_both_servers_work(pool: RemoteRewardPool) -> None:
    """Four samples at a time keep all four scoring processes busy."""
    pids = pool.score([response("value __import__('time').sleep(0.5) or __import__('os').getpid()") for _ in range(4)])
    assert len({score.value for score in pids}) == 4


def test_sample_that_cannot_travel_fails(pool: RemoteRewardPool) -> None:
    (score,) = pool.score([RewardInput("", "value 1", label=threading.Lock())])
    assert "cannot be sent to a reward server: a _thread.lock" in str(score.failure)


def test_hostile_text_travels(pool: RemoteRewardPool) -> None:
    text = "a\ud800\x00\r\n\u2028größer"
    assert pool.score([RewardInput(text, f"value sample.prompt_text == {text!a}")]) == [Score(1.0)]


def test_scoring_from_coroutines_in_a_thread(pool: RemoteRewardPool) -> None:
    async def gather() -> list[Score]:
        return await asyncio.gather(*(asyncio.wrap_future(pool.submit(response(f"value {i}"))) for i in range(10)))

    assert asyncio.run(gather()) == [Score(float(i)) for i in range(10)]


def test_a_server_that_dies_costs_no_sample_and_comes_back(tmp_path: Path) -> None:
    run_dir = write_run_file(tmp_path)
    slow = "value __import__('time').sleep(0.05) or {}"
    with running_servers(run_dir, 2) as servers:
        directory = WrittenDirectory([server.member for server in servers])
        with RemoteRewardPool(directory, KEY, START_S) as pool:
            futures = [pool.submit(response(slow.format(i))) for i in range(100)]
            wait_until(lambda: sum(future.done() for future in futures) > 5, "some are scored")
            workers = psutil.Process(servers[0].process.pid).children()
            servers[0].process.kill()
            assert [future.result(START_S) for future in futures] == [Score(float(i)) for i in range(100)]
            assert directory.told.wait(START_S)
            assert directory.condemned == [servers[0].member]
            psutil.wait_procs(workers, START_S)
            servers.append(restarted(run_dir, servers[0]))
            directory.members[0] = servers[-1].member
            wait_until(lambda: servers[-1].member in directory.ready, "the restarted one is in use")
            parents = {psutil.Process(int(score.value or 0)).ppid() for score in pool.score([response(GETPID)] * 8)}
            assert parents == {servers[1].process.pid, servers[-1].process.pid}


GETPID = "value __import__('time').sleep(0.2) or __import__('os').getpid()"


def test_a_server_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_dispatch, "SILENCE_S", 3.0)
    run_dir = write_run_file(tmp_path)
    with running_servers(run_dir, 2) as servers:
        directory = WrittenDirectory([server.member for server in servers])
        with RemoteRewardPool(directory, KEY, START_S) as pool:
            servers[1].process.send_signal(signal.SIGSTOP)
            try:
                scores = pool.score([response(f"value {i}") for i in range(20)])
            finally:
                servers[1].process.send_signal(signal.SIGCONT)
            assert scores == [Score(float(i)) for i in range(20)]
            assert directory.told.wait(START_S)
            assert directory.condemned == [servers[1].member]


def test_a_slow_sample_is_not_taken_for_a_hanging_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_dispatch, "SILENCE_S", 7.0)  # heartbeats come every 5 s
    run_dir = write_run_file(tmp_path)
    with running_servers(run_dir, 1) as servers:
        directory = WrittenDirectory([servers[0].member])
        with RemoteRewardPool(directory, KEY, START_S) as pool:
            assert pool.score([response("value __import__('time').sleep(9) or 1")]) == [Score(1.0)]
        assert directory.condemned == []


def test_a_sample_that_ends_every_server_fails_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The node agents restart them; the others' samples are scored."""
    monkeypatch.setattr(remote_servers, "POLL_S", 0.05)
    run_dir = write_run_file(tmp_path)
    kills = "value __import__('os').kill(__import__('os').getppid(), 9)"
    with running_servers(run_dir, 1) as servers:
        directory = WrittenDirectory([servers[0].member])
        with RemoteRewardPool(directory, KEY, START_S) as pool:
            futures = [pool.submit(response(text)) for text in ("value 1", kills, "value 2")]
            for _ in range(3):
                assert directory.told.wait(START_S)
                directory.told.clear()
                servers.append(restarted(run_dir, servers[-1]))
                directory.members[0] = servers[-1].member
            first, killer, last = [future.result(START_S) for future in futures]
    assert (first, last) == (Score(1.0), Score(2.0))
    assert "3 requests to reward servers broke off over it, the last to node0" in str(killer.failure)


def test_nobody_left_ends_the_step_instead_of_failing_samples(tmp_path: Path) -> None:
    run_dir = write_run_file(tmp_path)
    with running_servers(run_dir, 1) as servers:
        directory = WrittenDirectory([servers[0].member])
        with RemoteRewardPool(directory, KEY, START_S) as pool:
            pool._dispatch._servers._start_s = 1.0
            servers[0].process.kill()
            servers[0].process.wait(START_S)
            for _ in range(2):
                with pytest.raises(RewardsUnavailable, match=r"0 of 1 reward servers answer.*missing: node0 \("):
                    pool.submit(response("value 1")).result(START_S)
            servers.append(restarted(run_dir, servers[0]))
            directory.members[0] = servers[-1].member
            wait_until(lambda: servers[-1].member in directory.ready, "the restarted one is in use")
            assert pool.score([response("value 1")]) == [Score(1.0)]


@pytest.mark.parametrize(
    ("key", "words"),
    [
        pytest.param("another", r"0 of 2 .*node0 \(status 401: .*node9 \(not published\)", id="wrong key"),
        pytest.param(KEY, r"1 of 2 reward servers answer.*missing: node9 \(not published\)", id="one is not there"),
    ],
)
def test_missing_servers_are_named(key: str, words: str, tmp_path: Path) -> None:
    run_dir = write_run_file(tmp_path)
    with running_servers(run_dir, 1) as servers:
        member = servers[0].member
        with RemoteRewardPool(WrittenDirectory([member]), KEY, START_S):
            pass  # it is up
        directory = WrittenDirectory([member], names=(member.name, "node9"))
        with pytest.raises(RewardsUnavailable, match=words), RemoteRewardPool(directory, key, 1.0):
            pass


def test_closing_lets_go_and_the_servers_drop_what_nobody_waits_for(tmp_path: Path) -> None:
    run_dir = write_run_file(tmp_path, timeout_s=2.0)
    with running_servers(run_dir, 1) as servers:
        directory = WrittenDirectory([servers[0].member])
        with RemoteRewardPool(directory, KEY, START_S) as pool:
            hung = pool.submit(response(f"hang {tmp_path / 'pids'}"))
            queued = [pool.submit(response(f"hang {tmp_path / 'more'}")) for _ in range(20)]
            wait_until((tmp_path / "pids").exists, "the function hangs")
        assert all("closed" in str(future.result(0).failure) for future in [hung, *queued])
        pool.close()
        with pytest.raises(RuntimeError, match="not open"):
            pool.submit(response("value 1"))
        with RemoteRewardPool(directory, KEY, START_S) as another:
            assert another.score([response("value 1")]) == [Score(1.0)]
        assert not (tmp_path / "more").exists()
        for pid in map(int, (tmp_path / "pids").read_text().split()[1:]):
            if psutil.pid_exists(pid):
                os.kill(pid, signal.SIGKILL)


def test_an_address_where_nobody_listens_is_named() -> None:
    member = Member("rewards", "node3", 3, "127.0.0.1", 1, "http://127.0.0.1:9")
    with (
        pytest.raises(RewardsUnavailable, match=r"node3 \(ConnectError"),
        RemoteRewardPool(WrittenDirectory([member]), KEY, 0.5),
    ):
        pass


def test_a_server_scores_sets_by_rewards_of_their_own(tmp_path: Path) -> None:
    run_dir = write_run_file(tmp_path)
    with (run_dir / "run.yaml").open("a", encoding="utf-8") as file:
        file.write("eval: {sets: {hard: {path: rows.jsonl, reward: {type: last_number}}, easy: {path: rows.jsonl}}}\n")
    with running_servers(run_dir, 1) as servers:
        directory = WrittenDirectory([servers[0].member])
        with RemoteRewardPool(directory, KEY, START_S) as pool:
            said = RewardInput("prompt", "value 7.0", label="7")
            found = pool.score([replace(said, label=label, evaluation=name) for name, label in ASKED])
            assert found == [Score(7.0), Score(7.0), Score(1.0), Score(0.0)]


ASKED = (("", "7"), ("easy", "8"), ("hard", "7"), ("hard", "8"))
