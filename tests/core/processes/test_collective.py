"""Control collectives between two real processes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support.waiting import COMMAND_S

RANK_MAIN = """
import json, os, pickle, sys
from datetime import timedelta
from pathlib import Path
import torch.distributed as dist
sys.path.insert(0, sys.argv[2])
from core.processes import collective
from core.processes.collective import any_rank, broadcast, gather_bytes, gather_lists
from core.processes.plain import NotPlain
from core.rollout.sample_bytes import DamagedSamples, gather_samples
from tests.support.step_samples import make_samples
dist.init_process_group("gloo", timeout=timedelta(seconds=300))
rank, folder = dist.get_rank(), Path(sys.argv[1])


class Hostile:
    def __reduce__(self):
        return os.mkdir, (str(folder / f"trace-of-{rank}"),)


def refused(call, error):
    try:
        call()
    except error as refusal:
        return type(refusal).__name__


def same_samples():
    samples = make_samples(num_groups=4, group_size=2)
    prompts = [sample.prompt for sample in samples[::2]]
    for sample in samples:
        sample.prompt = prompts[sample.group]
    own = [sample for sample in samples if sample.group % 2 == rank]
    return sorted(gather_samples(own, prompts), key=lambda sample: (sample.group, sample.index)) == samples


def hostile(call, error):
    # rank 0 sends a pickle in place of what the call would send
    data = pickle.dumps(Hostile())
    honest_dump, honest_pack = collective.plain.dump, sys.modules["core.rollout.sample_bytes"].pack
    if rank == 0:
        collective.plain.dump = sys.modules["core.rollout.sample_bytes"].pack = lambda value: data
    try:
        return refused(call, error)
    finally:
        collective.plain.dump, sys.modules["core.rollout.sample_bytes"].pack = honest_dump, honest_pack


result = {
    "lists": gather_lists([rank, "x" * rank]),
    "nothing": gather_lists([]),
    "uneven": [len(part) for part in gather_bytes(bytes(range(rank * 200)))],
    "broadcast": repr(broadcast((Path("a"), {"from": rank}))),
    "none": broadcast(None),
    "any": [any_rank(rank == 1), any_rank(False)],
    "samples": same_samples(),
    "hostile": [
        hostile(lambda: gather_lists([1]), NotPlain),
        hostile(lambda: broadcast(1), NotPlain),
        hostile(lambda: gather_samples([], []), DamagedSamples),
    ],
    "afterwards": gather_lists([rank]),
}
(folder / f"rank{rank}.json").write_text(json.dumps(result))
dist.destroy_process_group()
"""


def run_two(main_text: str, folder: Path) -> list[Any]:
    """What each of two ranks wrote."""
    main = folder / "main.py"
    main.write_text(main_text)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(main)]
    root = Path(__file__).parents[3]
    done = subprocess.run([*command, str(folder), str(root)], capture_output=True, text=True, timeout=COMMAND_S)
    assert done.returncode == 0, done.stderr
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]


def test_two_processes_see_the_same_and_run_nobodys_pickle(tmp_path: Path) -> None:
    expected = {
        "lists": [0, "", 1, "x"],
        "nothing": [],
        "uneven": [0, 200],
        "broadcast": repr((Path("a"), {"from": 0})),
        "none": None,
        "any": [True, False],
        "samples": True,
        "hostile": ["NotPlain", "NotPlain", "DamagedSamples"],
        "afterwards": [0, 1],
    }
    assert run_two(RANK_MAIN, tmp_path) == [expected, expected]
    assert list(tmp_path.glob("trace-of-*")) == []
