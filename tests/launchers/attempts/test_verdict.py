from __future__ import annotations

import pytest

from core.config.sections.slurm import SlurmConfig
from launchers.attempts.history import Attempt
from launchers.attempts.verdict import judge

CAPS = SlurmConfig(max_timeouts=2, max_preemptions=3, max_failures=1)


def attempts(*ends: str, steps: int = 1, failed: tuple[str, ...] = ()) -> list[Attempt]:
    return [Attempt(number, how=how, steps_done=steps, failed_nodes=failed) for number, how in enumerate(ends, 1)]


@pytest.mark.parametrize("how", ["complete", "failed", "interrupted", "lost"])
def test_these_ends_are_final(how: str) -> None:
    verdict = judge(attempts(how), CAPS, True)
    assert (verdict.requeue, verdict.problem, verdict.text) == (False, "", "end\n\n\n")


@pytest.mark.parametrize(
    ("ends", "requeue"),
    [
        (["timeout", "timeout"], True),
        (["timeout", "preempted", "timeout", "timeout"], False),
        (["preempted"] * 3, True),
        (["preempted"] * 4, False),
        (["timeout", "node_failure"], True),
        (["node_failure", "timeout", "node_failure"], False),
    ],
    ids=str,
)
def test_each_kind_of_end_has_a_cap_of_its_own(ends: list[str], requeue: bool) -> None:
    verdict = judge(attempts(*ends), CAPS, True)
    assert verdict.requeue is requeue
    assert bool(verdict.problem) is not requeue
    if not requeue:
        assert f"ended by {ends[-1]}, more than slurm.max_" in verdict.problem


def test_nodes_that_ever_failed_stay_out() -> None:
    history = attempts("node_failure", failed=("n2",)) + attempts("timeout") + attempts("preempted", failed=("n1",))
    assert judge(history, CAPS, True).text == "requeue\nn1,n2\n\n"
    assert judge([*history, *attempts("timeout")], CAPS, True).exclude == ("n1", "n2")
    assert judge([*history, *attempts("complete")], CAPS, True).exclude == ("n1", "n2")


def test_where_requeue_is_forbidden_the_job_ends_and_the_chain_goes_on() -> None:
    verdict = judge(attempts("timeout", failed=("n2",)), CAPS, False, ("8+0", "8+1"))
    assert (verdict.requeue, verdict.problem, verdict.text) == (False, "", "end\nn2\n8+0 8+1\n")


def test_time_limits_that_no_step_fits_in_do_not_go_on_for_ever() -> None:
    assert judge(attempts("timeout", steps=0), CAPS, True).requeue
    verdict = judge(attempts("timeout", "timeout", steps=0), CAPS, True)
    assert verdict.requeue is False
    assert "2 attempts in a row reached the time limit and saved no further step: raise slurm.time" in verdict.problem
    assert f"now {CAPS.signal_s}" in verdict.problem


@pytest.mark.parametrize(
    ("saved", "requeue"),
    [([0, 0], False), ([2, 2], True), ([2, 2, 2], False), ([2, 3], True), ([0, 2], True), ([3, 3, 4], True)],
    ids=str,
)
def test_steps_that_were_not_saved_are_no_progress(saved: list[int], requeue: bool) -> None:
    """Killed at the limit, an attempt does again what the one before had done."""
    caps = SlurmConfig(max_timeouts=9)
    history = [
        Attempt(number, how="timeout", steps_done=1, saved_step=step, cause="the time limit came in update of step 2")
        for number, step in enumerate(saved, 1)
    ]
    verdict = judge(history, caps, True)
    assert verdict.requeue is requeue
    assert ("the time limit came in update of step 2" in verdict.problem) is not requeue


def test_other_ends_without_a_step_say_nothing_of_the_time_limit() -> None:
    assert judge(attempts("node_failure", "timeout", steps=0), CAPS, True).requeue
    assert judge(attempts("timeout", steps=0) + attempts("timeout"), CAPS, True).requeue
    assert judge(attempts("preempted", "preempted", steps=0), CAPS, True).requeue


@pytest.mark.parametrize(
    ("ends", "problem"),
    [(["node_failure"] * 2, True), (["timeout"] * 2, True), (["complete"], False)],
    ids=["too many", "fruitless", "complete"],
)
def test_a_run_that_ends_still_hands_its_nodes_on(ends: list[str], problem: bool) -> None:
    verdict = judge(attempts(*ends, steps=0, failed=("n2",)), CAPS, True, ("8",))
    assert bool(verdict.problem) is problem
    assert verdict.text == "end\nn2\n8\n"
