from __future__ import annotations

import pytest

from launchers.attempts.job_record import JobRecord


@pytest.mark.parametrize(("job", "after"), [("7", ("8", "9")), ("9", ()), ("5", ())], ids=["first", "last", "another"])
def test_the_jobs_of_a_chain_that_are_to_come(job: str, after: tuple[str, ...]) -> None:
    assert JobRecord("7", chain=("7", "8", "9"), earlier=("5",)).after(job) == after


def test_a_job_that_requeues_itself_has_none_after_it() -> None:
    assert JobRecord("7").after("7") == ()
