"""The door `rollout.filter`: a user's file outside the package decides which groups are trained."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch.distributed as dist

from core.algorithm.batch import TooManyFailures
from core.config.sections.rollout import RolloutConfig
from core.processes.user_process import WorkerStartError
from core.rollout.group_filter import MAX_REASONS, GroupFilter
from core.samples import Prompt, Sample, Status
from tests.support.door_files import PAGE, example, said_of, write_file

KEY = "rollout.filter"
WANTED = "a function (group) -> True: it may be trained; False or the reason: it is not, or a class whose objects"
MINE = """
import os
import time

pids = []


def spread(group, least=2):
    return len({sample.reward for sample in group}) >= least or "No spread!"


def by_row(group):
    row = group[0].row
    if row == 1:
        raise KeyError("kind")
    if row == 2:
        os._exit(3)
    if row == 3:
        return None
    return row != 4


class Counts:
    def __init__(self, file):
        self.file, self.seen = file, 0

    async def __call__(self, group):
        self.seen += 1
        with open(self.file, "a") as file:
            print(os.getpid(), self.seen, [(s.index, s.reward, s.failure) for s in group], file=file)
        return True


def hangs(group):
    if group[0].row:
        time.sleep(60)
    return True


def a_reason_each(group):
    return f"row {group[0].row}"
"""


@pytest.fixture(autouse=True)
def one_rank(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def opened(folder: Path, function: str, timeout_s: float = 30.0, share: float = 1.0, **options: object) -> GroupFilter:
    file = write_file(folder, MINE)
    config = RolloutConfig(num_rollout=1, rollout_batch_size=2, filter=f"{file}:{function}", filter_options=options)
    return GroupFilter(config, max_failed_share=share, timeout_s=timeout_s)


def drawn(*groups: list[float | None]) -> list[Sample]:
    return [
        Sample(group, index, Prompt(group, "p", (1,), "x"), [1], [-1.0], Status.COMPLETED, "v", reward=reward)
        for group, rewards in enumerate(groups)
        for index, reward in enumerate(rewards)
    ]


def chosen(made: GroupFilter, samples: list[Sample], num_groups: int) -> tuple[list[int], dict[str, float]]:
    groups = made.choose(samples, made.verdicts(samples, step=3), num_groups)
    counts = {name.removeprefix("rollout/filter/"): value for name, value in made.take_counts().items() if value}
    return sorted(groups), counts


def test_it_says_which_groups_are_trained_and_why_others_are_not(tmp_path: Path) -> None:
    samples = drawn([1.0, 1.0], [0.0, 1.0], [0.0, 0.0], [1.0, 0.0])
    with opened(tmp_path, "spread") as made:
        assert chosen(made, samples, 2) == ([1, 3], {"drawn": 4, "passed": 2, "rejected/no_spread": 2})
    with opened(tmp_path, "spread", least=1) as made:
        assert chosen(made, samples, 2) == ([0, 1], {"drawn": 4, "passed": 4, "surplus": 2})


def test_what_goes_wrong_in_it_is_a_rejected_group_and_the_next_are_asked_all_the_same(tmp_path: Path) -> None:
    samples = drawn(*[[0.0]] * 6)
    with opened(tmp_path, "by_row", share=0.5) as made:
        verdicts = made.verdicts(samples, step=0)
        assert [verdict.reason for verdict in verdicts.values()] == ["", *["no_answer"] * 3, "rejected", ""]
        assert [verdict.failure for verdict in verdicts.values() if verdict.failure] == [
            "KeyError: 'kind' (mine.py:15 in by_row); row 1",
            "its process ended with exit code 3; row 2",
            "found a NoneType (None); wanted True, False or the reason why not (mine.py:12 in by_row); row 3",
        ]
        assert made.choose(samples, verdicts, 2) == {0, 5}
    with opened(tmp_path, "by_row", share=0.4) as made, pytest.raises(TooManyFailures) as found:
        made.choose(samples, made.verdicts(samples, step=0), 2)
    said = "rollout.filter has no answer to 3 of 6 groups (50%), more than reward.max_failed_share = 40%: 1x KeyError: "
    assert str(found.value).startswith(said)
    assert str(found.value).endswith("then resume: nothing before this step is lost.")


def test_one_that_hangs_is_killed_and_the_others_are_judged(tmp_path: Path) -> None:
    with opened(tmp_path, "hangs", timeout_s=1.0) as made:
        verdicts = made.verdicts(drawn([0.0], [0.0]), step=0)
        assert verdicts[0] == ("", "")
        assert verdicts[1].failure == "no answer within 1 s (reward.timeout_s); its process was killed; row 1"
        assert made.verdicts(drawn([0.0]), step=0)[0] == ("", "")


def test_an_object_is_made_once_in_a_process_of_its_own_and_sees_each_group_whole(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    with opened(tmp_path, "Counts", file=str(seen)) as made:
        made.verdicts(drawn([0.5, None], [1.0]), step=0)
    first, second = seen.read_text().splitlines()
    assert first.endswith("1 [(0, 0.5, None), (1, None, None)]")
    assert second.endswith("2 [(0, 1.0, None)]")
    pids = {int(line.split()[0]) for line in (first, second)}
    assert len(pids) == 1
    assert pids.isdisjoint({os.getpid()})


def test_reasons_do_not_become_metrics_without_end(tmp_path: Path) -> None:
    samples = drawn(*[[0.0]] * (MAX_REASONS + 5))
    with opened(tmp_path, "a_reason_each") as made:
        _, counts = chosen(made, samples, 1)
    assert counts["rejected/others"] == 5
    assert sum(name.startswith("rejected/") for name in counts) == MAX_REASONS + 1


def test_one_that_cannot_be_loaded_ends_the_run_as_it_begins(tmp_path: Path) -> None:
    with pytest.raises(WorkerStartError, match=r"rollout\.filter .*mine\.py:spread cannot be started: Wrong: .*lest"):
        opened(tmp_path, "spread", lest=1).__enter__()


@pytest.mark.parametrize(
    ("text", "settings", "wanted"),
    [
        ("def f(group, least=1):\n    return True\n", ["rollout.filter_options={least: 2}"], ""),
        (
            "def f(group):\n    return True\n",
            ["rollout.filter_options={least: 2}"],
            "rollout.filter_options: found the option least; wanted no options",
        ),
        ("def f():\n    return True\n", [], f"{KEY}: found f of DIR/mine.py with (); wanted {WANTED}"),
        ("x = 1\n", [], f"{KEY}: found no f in DIR/mine.py"),
    ],
    ids=["fits", "unknown option", "no parameter", "no function"],
)
def test_what_is_wrong_with_one_is_said_before_the_start(
    text: str, settings: list[str], wanted: str, tmp_path: Path
) -> None:
    settings = ["rollout.filter=mine.py:f", "rollout.over_sampling_batch_size=3", *settings]
    found = said_of(tmp_path, text, *settings)
    assert found.startswith(wanted) if wanted else found == ""


def test_further_rounds_want_a_schedule_that_counts_their_rows(tmp_path: Path) -> None:
    settings = ["rollout.filter=nonzero_std", "rollout.filter_rounds=3", "placement.schedule=mine.py:run"]
    run = "def run(parts):\n    return True\n"
    found = said_of(tmp_path, run, *settings)
    assert found.startswith(
        "rollout.filter_rounds: found 3 with placement.schedule DIR/mine.py:run; wanted a schedule that"
    )
    assert said_of(tmp_path, f"{run}\n\nrun.keeps_rest = True\n", *settings) == ""
    assert said_of(tmp_path, run, *settings[:2]) == ""
    assert "wanted a filter that rejects" in said_of(tmp_path, run, "rollout.filter_rounds=3")


def test_the_example_of_the_page(tmp_path: Path) -> None:
    file = write_file(tmp_path, example("Filter"), "not_too_easy.py")
    config = RolloutConfig(num_rollout=1, rollout_batch_size=1, filter=f"{file}:keep", filter_options={"most": 0.75})
    samples = drawn([1.0, 1.0, 1.0, 0.8], [None], [0.0, 1.0], [0.5, 0.5])
    with GroupFilter(config, max_failed_share=1.0, timeout_s=30.0) as made:
        reasons = [verdict.reason for verdict in made.verdicts(samples, step=0).values()]
    assert reasons == ["too_easy", "no_rewards", "", "rejected"]
    assert re.search(r"wanted True, False or the reason why not \(not_too_easy.py:4 in keep\)", PAGE.read_text())
