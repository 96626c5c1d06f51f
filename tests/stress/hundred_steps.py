"""A long run with everything that chooses groups, disturbed; then every row that was drawn is accounted for.

    python -m tests.stress.hundred_steps --steps 100 --deaths 4

The run over-samples, filters and carries over. Its engine is killed in the middle of rollouts, and half-way the run is
interrupted and resumed, as a requeue does. Its rows are in order, so a place in the data says a row and an epoch. What
has been drawn is then held against what step files and the last checkpoint have: each group was trained, rejected, or
is carried over, and exactly one of these.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from common.waiting import wait_until
from core.loop.carried_file import read_carried
from core.loop.manifest import find_latest
from core.trajectory import list_steps, read_step, step_path
from tests.support.tiny_runs import descendants, entered, events, start_ebbtide, write_run

NUM_ROWS, GROUP = 40, 2
BATCH, UNDER_WAY = 3, 6  # groups trained in a step, and begun
FILTER = """
def keep(group):
    return group[0].row % 5 > 0 or "every fifth"
"""
MOMENT_S = 900.0  # until a step is reached, with an engine that starts again


def rejected(row: int) -> bool:
    """What the filter says of a row."""
    return row % 5 == 0


@dataclass(frozen=True)
class Account:
    """Groups of a run, by where they were drawn.

    Attributes:
        drawn: places in the data, from 0.
        trained: step files that have a group of a row, by row.
        carried: places of groups that the next step would go on with.
        seeds: how often a seed of a trained sample is there.
        sizes: samples of each trained group.
    """

    drawn: int
    trained: Mapping[int, int]
    carried: frozenset[int]
    seeds: Mapping[int, int]
    sizes: tuple[int, ...]

    def violations(self, num_trained: int) -> Iterator[str]:
        """What is lost or doubled, in words; nothing, where each group drawn has come to one end."""
        wanted = Counter(
            place % NUM_ROWS
            for place in range(self.drawn)
            if not rejected(place % NUM_ROWS) and place not in self.carried
        )
        found = Counter(dict(self.trained))
        for row in sorted({*wanted, *found}):
            if wanted[row] != found[row]:
                yield f"row {row} was trained {found[row]} times; wanted {wanted[row]}"
        if twice := [seed for seed, count in self.seeds.items() if count > 1]:
            yield f"{len(twice)} samples were trained twice"
        if found.total() != num_trained:
            yield f"{found.total()} groups were trained; wanted {num_trained}"
        if whole := [size for size in self.sizes if size != GROUP]:
            yield f"{len(whole)} groups are not whole: {whole[:5]}"


def account_of(run_dir: Path) -> Account:
    """What the step files and the last checkpoint of a run say."""
    trained: Counter[int] = Counter()
    seeds: Counter[int] = Counter()
    sizes: list[int] = []
    for step in list_steps(run_dir):
        record = read_step(step_path(run_dir, step))
        assert record.seed is not None
        seeds.update(record.seed.tolist())
        groups = dict(zip(record.group.tolist(), record.row.tolist(), strict=True))
        trained.update(groups.values())
        sizes += Counter(record.group.tolist()).values()
    found = find_latest(run_dir / "checkpoints")
    assert found is not None
    folder, state = found
    carried = frozenset(one.origin.position for one in read_carried(folder))
    return Account(state.data_position, trained, carried, seeds, tuple(sizes))


def write(folder: Path, num_steps: int) -> Path:
    """The run file and what it needs."""
    run_file = write_run(
        folder,
        data={"shuffle": False},
        rollout={
            **{"num_rollout": num_steps, "rollout_batch_size": BATCH, "n_samples_per_prompt": GROUP},
            **{"over_sampling_batch_size": UNDER_WAY, "filter": "keep.py:keep", "filter_rounds": 3},
            **{"carry_over_tokens": 3, "carry_over_steps": 3, "request_timeout_s": 60},
        },
        train={"global_batch_size": BATCH * GROUP, "num_steps_per_rollout": 1},
        placement={"device": "cpu", "engine_restarts": 50, "start_timeout_s": 600},
        checkpoint={"interval": 5, "save_hf": "off"},
        slurm={"max_failures": 50},
    )
    (folder / "keep.py").write_text(FILTER)
    rows = [{"prompt": f"say {['one', 'two', 'three'][row % 3]} {row}", "label": str(row)} for row in range(NUM_ROWS)]
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return run_file


def play(folder: Path, num_steps: int, deaths: int, seed: int) -> dict[str, Any]:
    """Run, disturb, resume; the line of the result."""
    chance = random.Random(seed)
    half = num_steps // 2
    moments = sorted(chance.sample([step for step in range(1, num_steps) if step != half], deaths))
    run_file, run_dir, log = write(folder, num_steps), folder / "out", folder / "log"
    began = time.monotonic()
    command = start_ebbtide("run", str(run_file), "--run-dir", str(run_dir), log=log)
    try:
        for step in sorted([*moments, half]):
            _reach(run_dir, step, command)
            if step != half:
                time.sleep(chance.uniform(0.0, 0.3))
                _kill_engine(run_dir)
                continue
            command.send_signal(signal.SIGINT)
            command.wait(MOMENT_S)
            command = start_ebbtide("resume", str(run_dir), log=log)
        code = command.wait(MOMENT_S + 10.0 * num_steps)
    finally:
        with suppress(ProcessLookupError, psutil.NoSuchProcess):
            if command.poll() is None:
                command.terminate()
                command.wait(120)
    account = account_of(run_dir)
    told = {event["step"]: event["metrics"] for event in events(run_dir, "step")}  # of a repeated step the last
    return {
        "steps": len(told),
        "exit code": code,
        "engine deaths": _deaths(run_dir),
        "attempts": len(list((run_dir / "attempts").glob("[0-9]*"))),
        "groups drawn": account.drawn,
        "trained": sum(account.trained.values()),
        "rejected": sum(rejected(place % NUM_ROWS) for place in range(account.drawn)) - _rejected_carried(account),
        "carried over at the end": len(account.carried),
        "trained in a later step than begun": int(sum(one["rollout/carried/trained"] for one in told.values())),
        "seconds": round(time.monotonic() - began),
        "violations": list(account.violations(BATCH * num_steps)),
    }


def _rejected_carried(account: Account) -> int:
    """Groups on their way that the filter has not seen yet, and will reject."""
    return sum(rejected(place % NUM_ROWS) for place in account.carried)


def _reach(run_dir: Path, step: int, command: Any) -> None:
    """Until a rollout of this step has begun."""

    def reached() -> bool:
        phases = [entered(event) for event in events(run_dir, "phase")]
        return f"rollout step={step}" in phases or command.poll() is not None

    assert wait_until(reached, MOMENT_S), f"step {step} was not reached"
    assert command.poll() is None, (run_dir.parent / "log").read_text()[-2000:]


def _kill_engine(run_dir: Path) -> None:
    """End the engine with all that it has started; one that is not there is waited for."""
    assert wait_until(lambda: psutil.pid_exists(_engine_pid(run_dir)), MOMENT_S), "no engine came back"
    with suppress(psutil.NoSuchProcess):
        for process in descendants([_engine_pid(run_dir)]):
            process.kill()


def _engine_pid(run_dir: Path) -> int:
    """The engine that was started last, as the agent's log has it; -1: the attempt has started none yet."""
    attempt = max(int(path.name) for path in (run_dir / "attempts").glob("[0-9]*"))
    log = run_dir / "attempts" / str(attempt) / "agent-0.log"
    lines = log.read_text().splitlines() if log.exists() else []
    started = [line for line in lines if "engine=node0-engine0 incarnation=" in line and "pid=" in line]
    return int(started[-1].partition("pid=")[2].split()[0]) if started else -1


def _deaths(run_dir: Path) -> int:
    """Ends of engines by a signal that the agents tell of."""
    logs = (run_dir / "attempts").glob("[0-9]*/agent-0.log")
    return sum(log.read_text().count("killed by signal 9 (SIGKILL): restarting") for log in logs)


def main() -> None:
    """Print the result as JSON. Exit code 1: something was lost or doubled."""
    parser = argparse.ArgumentParser(prog="python -m tests.stress.hundred_steps", description=__doc__)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--deaths", type=int, default=4, help="how often the engine is killed")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ebbtide-hundred.") as folder:
        line = play(Path(folder), options.steps, options.deaths, options.seed)
    print(json.dumps(line))
    sys.exit(1 if line["violations"] or line["exit code"] else 0)


if __name__ == "__main__":
    main()
