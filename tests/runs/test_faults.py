"""Faults injected into real processes of real runs."""

from __future__ import annotations

import contextlib
import json
import re
import signal
from pathlib import Path

import h5py
import psutil
import pytest

from common.waiting import wait_until
from core.processes.children import shared_memory
from core.trajectory import step_path
from launchers.node.temporary import base_folder, common_folder, remove_what_dead_ones_left
from tests.support.faulty_runs import member_pid, wait_for_phase
from tests.support.slurm_runs import hold, hold_phases
from tests.support.tiny_runs import descendants, ebbtide, events, start_ebbtide, survivors, write_run

pytestmark = pytest.mark.run

FAILING_REWARD = '''
import time
from pathlib import Path

COUNTER = Path(__file__).with_name("calls")


def reward(sample):
    """Of the first 16 calls the first raises, the second hangs, the third gives NaN; later ones all raise.

    The trial call before the start, with a response without tokens, does not count.
    """
    if not sample.num_response_tokens:
        return 0.0
    number = int(COUNTER.read_text()) if COUNTER.exists() else 0
    COUNTER.write_text(str(number + 1))
    if number == 0 or number >= 16:
        raise RuntimeError("the judge is out")
    if number == 1:
        time.sleep(600)
    return float("nan") if number == 2 else 1.0
'''


def bearers(api_key: str) -> list[psutil.Process]:
    """Every living process on this machine that was started, however indirectly, by the attempt with this key."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if api_key in process.environ().values() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def test_an_engine_killed_while_it_generates_costs_no_group(tmp_path: Path) -> None:
    """Two trainer ranks, each serving one of the engine's two ranks; every sync is proven."""
    run_dir = tmp_path / "out"
    run_file = write_run(
        tmp_path,
        kind="qwen3",
        placement={"device": "cpu", "trainers_per_node": 2, "engine_tensor_parallel": 2, "check_sync": 1},
        rollout={"num_rollout": 2, "max_response_tokens": 200},
        train={"global_batch_size": 16, "num_steps_per_rollout": 1, "max_tokens_per_micro_batch": 2048},
        algorithm={"kl_loss_coef": 0.1},
    )
    command = start_ebbtide("run", str(run_file), "--run-dir", str(run_dir), log=tmp_path / "log")
    wait_for_phase(run_dir, "rollout step=1", command)
    descendants([member_pid(run_dir, "engine=node0-engine0")])[0].kill()
    assert command.wait(300) == 0, (tmp_path / "log").read_text()
    assert "restarting" in (run_dir / "attempts/1/agent-0.log").read_text()
    assert "groups_missing=" in (run_dir / "attempts/1/trainer-0.log").read_text()
    with h5py.File(step_path(run_dir, 1)) as file:
        assert sorted(file["group"][...].tolist()) == sorted(list(range(4)) * 4)
    metrics = [event["metrics"] for event in events(run_dir, "step")]
    assert all(m["train/train_rollout_logprob_abs_diff"] < 1e-5 for m in metrics)
    assert all(m["train/train_rollout_logprob_abs_diff_max"] < 1e-3 for m in metrics)
    assert metrics[0]["train/kl_loss"] == 0  # to itself
    assert metrics[1]["train/kl_loss"] > 0


def test_an_engine_killed_in_an_update_is_started_later_and_one_that_hangs_is_ended_and_replaced(
    tmp_path: Path,
) -> None:
    """Trainer and engine give memory back to each other: started at once, one of them would find none.

    Two steps on its successor is stopped: a process that neither answers nor dies, which the request's deadline ends.
    """
    run_dir = tmp_path / "out"
    run_file = write_run(tmp_path, rollout={"num_rollout": 4, "request_timeout_s": 15}, placement={"offload": "on"})
    hold_phases(run_file)
    hold(run_file, "update step=1")
    command = start_ebbtide("run", str(run_file), "--run-dir", str(run_dir), log=tmp_path / "log")
    wait_for_phase(run_dir, "update step=1", command)
    agent_log = run_dir / "attempts/1/agent-0.log"
    psutil.Process(member_pid(run_dir, "engine=node0-engine0")).kill()
    assert wait_until(lambda: "engine=node0-engine0 is held back" in agent_log.read_text(), 30)
    hold(run_file, "save step=1")
    wait_for_phase(run_dir, "save step=1", command)
    assert "incarnation=1" not in agent_log.read_text()

    hold(run_file, "rollout step=3")
    wait_for_phase(run_dir, "rollout step=3", command)
    assert "engine=node0-engine0 incarnation=1" in agent_log.read_text()
    server = psutil.Process(member_pid(run_dir, "engine=node0-engine0 incarnation=1"))
    for process in descendants([server.pid]):
        process.suspend()
    hold(run_file, None)
    assert command.wait(300) == 0, (tmp_path / "log").read_text()
    assert not server.is_running()
    assert agent_log.read_text().count("killed by signal 9 (SIGKILL): restarting") == 2
    assert "engine=node0-engine0 incarnation=2" in agent_log.read_text()
    for step in range(4):
        with h5py.File(step_path(run_dir, step)) as file:
            assert sorted(file["group"][...].tolist()) == sorted(list(range(4)) * 4)


def test_of_two_engines_one_dies_and_the_other_takes_over(tmp_path: Path) -> None:
    """Two trainer ranks (tensor parallel), two engines: every sample says who made it."""
    run_dir = tmp_path / "out"
    placement = {"device": "cpu", "trainers_per_node": 2, "tensor_parallel": 2, "engines_per_node": 2}
    width = {"engine_max_running_requests": 4}  # one group at a time, so that both engines get some
    rollout = {"num_rollout": 2, "max_response_tokens": 100}
    run_file = write_run(
        tmp_path, placement=placement | width, rollout=rollout, train={"max_tokens_per_micro_batch": 2048}
    )
    command = start_ebbtide("run", str(run_file), "--run-dir", str(run_dir), log=tmp_path / "log")
    wait_for_phase(run_dir, "rollout step=1", command)
    psutil.Process(member_pid(run_dir, "engine=node0-engine1")).kill()
    assert command.wait(300) == 0, (tmp_path / "log").read_text()
    made_by = []
    for step in range(2):
        with h5py.File(step_path(run_dir, step)) as file:
            assert sorted(file["group"][...].tolist()) == sorted(list(range(4)) * 4)
            made_by.append(set(file["engine"][...].tolist()))
    assert made_by[0] == {b"node0-engine0", b"node0-engine1"}
    assert b"node0-engine0" in made_by[1]
    for event in events(run_dir, "step"):
        assert event["metrics"]["train/train_rollout_logprob_abs_diff"] < 1e-5


def test_a_killed_trainer_rank_ends_everything_and_is_named(tmp_path: Path) -> None:
    run_dir = tmp_path / "out"
    run_file = write_run(tmp_path, kind="qwen3-tied", placement={"trainers_per_node": 2})
    command = start_ebbtide("run", str(run_file), "--run-dir", str(run_dir), log=tmp_path / "log")
    wait_for_phase(run_dir, "rollout step=1", command)
    family = descendants([command.pid])
    rank1 = next(p for p in family if "launchers.rank.trainer" in p.cmdline() and p.environ().get("RANK") == "1")
    rank1.kill()
    assert command.wait(30) == 1
    assert survivors(family) == []
    record = json.loads((run_dir / "attempts/1/failure.json").read_text())
    assert (record["role"], record["name"], record["pid"]) == ("trainer", "1", rank1.pid)
    assert record["cause"] == "killed by signal 9 (SIGKILL)"
    assert record["phase"] in ("sync", "rollout", "score", "update")
    assert "killed by signal 9" in (tmp_path / "log").read_text()
    assert json.loads((run_dir / "ledger.jsonl").read_text().splitlines()[-1])["how"] == "failed"


@pytest.mark.parametrize(
    ("role", "number", "exit_code"),
    [("command", signal.SIGKILL, -9), ("agent", signal.SIGKILL, 1), ("command", signal.SIGINT, 130)],
    ids=["kill -9 of the command", "kill -9 of the node agent", "Ctrl-C"],
)
def test_nothing_outlives_the_command(role: str, number: signal.Signals, exit_code: int, tmp_path: Path) -> None:
    """Not even the helper of torch's shared memory, which detaches itself, nor that memory."""
    run_dir = tmp_path / "out"
    run_file = write_run(tmp_path, rollout={"num_rollout": 500})  # it is still going when it is told to end
    command = start_ebbtide("run", str(run_file), "--run-dir", str(run_dir), log=tmp_path / "log")
    wait_for_phase(run_dir, "rollout step=1", command)  # weights have gone through shared memory
    agent = psutil.Process(command.pid).children()[0]
    key = (run_dir / "attempts" / "1" / "key").read_text()
    assert len(bearers(key)) >= 4  # torchrun, trainer, the engine's server, and that helper
    family = descendants([agent.pid])
    assert any("core.reward.worker" in process.cmdline() for process in family)  # which does not get the key
    held = {path for process in family for path in shared_memory(process.pid)}
    assert held
    (agent if role == "agent" else psutil.Process(command.pid)).send_signal(number)
    assert command.wait(40) == exit_code
    assert wait_until(lambda: not bearers(key), 30), bearers(key)
    assert wait_until(lambda: survivors(family) == [], 30)
    if number == signal.SIGKILL:  # then nobody is left to remove SGLang's load counters; whoever comes next does
        remove_what_dead_ones_left(base_folder(common_folder()))
    assert {path.name for path in held if path.exists()} == set()
    if number == signal.SIGINT:
        said = (tmp_path / "log").read_text()
        steps = re.search(
            r"stopped: saved, all (\d+) steps that are complete\.\nGo on with: ebbtide resume (\S+)", said
        )
        assert steps, said
        assert steps[2] == str(run_dir)
        assert (run_dir / "checkpoints" / f"step_{int(steps[1]):06d}" / "manifest.json").exists()
        assert json.loads((run_dir / "ledger.jsonl").read_text().splitlines()[-1])["how"] == "interrupted"


def test_failing_rewards_are_named_tolerated_and_then_stop_the_run(tmp_path: Path) -> None:
    run_dir = tmp_path / "out"
    reward = {"max_failed_share": 0.25, "timeout_s": 2}
    run_file = write_run(tmp_path, reward=reward, checkpoint={"interval": 0})
    (tmp_path / "reward.py").write_text(FAILING_REWARD)
    done = ebbtide("run", str(run_file), "--run-dir", str(run_dir))
    assert done.returncode == 1
    with h5py.File(step_path(run_dir, 0)) as file:
        failures = [text.decode() for text in file["failure"][...] if text]
    assert len(failures) == 3
    for reason in ("the judge is out", "2", "nan"):
        assert any(reason in text.lower() for text in failures), (reason, failures)
    assert "16 of 16 samples could not be scored (100%), more than reward.max_failed_share = 25%" in done.stdout
    assert (run_dir / "checkpoints" / "step_000001" / "manifest.json").exists()
