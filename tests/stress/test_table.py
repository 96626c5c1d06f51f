"""Every row of the table "What survives a failure" of docs/design.md has a test, which is named here."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FAULTS, ON_SLURM = "tests/runs/test_faults.py", "tests/slurm/test_run_faults.py"
JUDGED, EARLY = "tests/launchers/attempts/test_judgement.py", "tests/launchers/node/test_early.py"
PAUSES, NODE_LOSS = "tests/slurm/test_run_pauses.py", "tests/slurm/test_run_node_loss.py"
# how a row begins -> tests of it, as FILE::NAME
TESTS = {
    "engine dies": (
        f"{FAULTS}::test_an_engine_killed_while_it_generates_costs_no_group",
        f"{FAULTS}::test_of_two_engines_one_dies_and_the_other_takes_over",
    ),
    "engine paused": (
        "tests/core/sglang/test_transport.py::test_a_connection_that_is_closed_under_a_request_is_replaced_once",
    ),
    "a node's part of an engine over several": (
        "tests/slurm/test_run_layouts.py::test_one_allocation_and_an_engine_over_two_of_its_nodes",
        "tests/launchers/node/test_arms.py::test_an_arm_that_dies_too_often_is_named_in_the_engines_failure",
    ),
    "trainer rank raises": (f"{ON_SLURM}::test_a_trainer_rank_that_raises_fails_the_job",),
    "reward raises": (f"{FAULTS}::test_failing_rewards_are_named_tolerated_and_then_stop_the_run",),
    "reward server of another node": (
        f"{ON_SLURM}::test_servers_that_die_are_restarted_and_the_attempt_goes_on",
        "tests/core/reward/test_remote.py::test_a_server_that_hangs_is_given_up",
    ),
    "no reward server": (
        "tests/core/reward/test_remote.py::test_nobody_left_ends_the_step_instead_of_failing_samples",
        "tests/core/reward/test_remote.py::test_missing_servers_are_named",
    ),
    "node lost, unfit": (
        f"{NODE_LOSS}::test_a_node_lost",
        f"{ON_SLURM}::test_a_trainer_rank_that_is_killed_is_tried_again_elsewhere",
    ),
    "something that all nodes complain of": (f"{ON_SLURM}::test_what_no_node_has_is_waited_for_and_blames_none",),
    "the job could not start without": (
        "tests/hpc/sbatch/test_sbatch_execution.py::test_a_list_that_would_make_the_job_impossible_is_emptied_and_said_so",
    ),
    "time limit near": (f"{PAUSES}::test_the_time_limit", f"{PAUSES}::test_a_preemption_with_a_warning"),
    "the time limit of a running job": (
        "tests/core/loop/test_pause.py::test_the_end_is_asked_again_before_it_pauses_for_it",
        "tests/launchers/node/test_task.py::test_the_leader_asks_for_a_limit_that_was_changed",
    ),
    "a step lasts longer": (f"{PAUSES}::test_a_step_longer_than_the_warning",),
    "node lost while ranks exchange": (f"{JUDGED}::test_an_error_of_second_hand_waits_until_it_shows_who_is_gone",),
    "agent, or whole node, stopped": (
        "tests/launchers/node/test_pulse.py::test_a_leader_that_was_away_misses_nobody",
        f"{JUDGED}::test_the_first_judgement_holds",
    ),
    "the disk of the run directory": (
        f"{ON_SLURM}::test_a_disk_that_fills_up_is_named_wherever_one_looks",
        "tests/launchers/attempts/test_reserve.py::test_a_failure_is_recorded_on_a_full_disk",
        "tests/launchers/commands/test_submit_command.py::"
        "test_a_full_disk_is_told_in_a_line_and_no_job_is_sent_that_nobody_would_know",
    ),
    "processes are killed with SIGKILL": (
        f"{FAULTS}::test_nothing_outlives_the_command",
        "tests/launchers/node/test_holdings.py::test_the_next_agent_removes_what_a_dead_one_noted",
    ),
    "first node lost": (f"{NODE_LOSS}::test_the_first_node_lost",),
    "agent of another node killed": (f"{ON_SLURM}::test_an_agent_that_is_killed",),
    "agent of the first node killed": (f"{ON_SLURM}::test_an_agent_that_is_killed",),
    "Ctrl-C while the command itself": (f"{EARLY}::test_an_entry_ends_on_the_spot_while_it_imports",),
    "Ctrl-C or SIGTERM of the command": (f"{FAULTS}::test_nothing_outlives_the_command",),
    "`scancel`, a requeue or Ctrl-C while a process still imports": (
        f"{EARLY}::test_an_entry_ends_on_the_spot_while_it_imports",
        "tests/launchers/node/test_agent.py::test_an_agent_begins_with_the_signals_that_came_before",
    ),
    "`scancel`, `ebbtide cancel`": (
        "tests/slurm/test_run_cancel.py::test_scancel_at_random_times",
        f"{FAULTS}::test_nothing_outlives_the_command",
    ),
    "a checkpoint that is written while the run goes on": (
        "tests/core/loop/test_saves_beside_the_run.py::test_a_write_that_fails_is_told_at_the_next_step",
        "tests/core/loop/test_saves_beside_the_run.py::test_what_is_half_written_is_never_taken_for_whole",
    ),
    "a checkpoint is cut off": (
        "tests/core/loop/test_checkpoints.py::test_a_damaged_checkpoint_is_skipped_with_its_reason",
        "tests/core/loop/test_checkpoints.py::test_a_save_that_was_cut_off_leaves_the_older_one_and_is_cleared_by_the_next",
    ),
}


def rows() -> list[str]:
    """The events of the table."""
    page = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    _, _, after = page.partition("## What survives a failure")
    table = re.findall(r"^\| (.*?) \| ", after.partition("\n## ")[0], re.MULTILINE)
    return table[1:]


def test_every_row_has_a_test_and_every_name_here_a_row() -> None:
    found = {begin: [row for row in rows() if row.startswith(begin)] for begin in TESTS}
    assert {begin: named for begin, named in found.items() if len(named) != 1} == {}
    assert sorted(row for named in found.values() for row in named) == sorted(rows())


@pytest.mark.parametrize("test", sorted({test for tests in TESTS.values() for test in tests}))
def test_the_test_is_there(test: str) -> None:
    path, _, name = test.partition("::")
    assert f"\ndef {name}(" in (ROOT / path).read_text(encoding="utf-8")
