from __future__ import annotations

from pathlib import Path

import pytest

from core.checks.resumed import fixed_keys_changed
from core.config import load_run_file
from tests.support.good_run import write_run


def messages(folder: Path, *overrides: str) -> list[str]:
    file = write_run(folder)
    return [str(one) for one in fixed_keys_changed(load_run_file(file), load_run_file(file, overrides), overrides)]


@pytest.mark.parametrize(
    "override",
    ["rollout.num_rollout=9", "train.lr=1e-5", "eval.interval=3", "checkpoint.keep=5", "placement.engines_per_node=2"],
)
def test_what_may_change(override: str, tmp_path: Path) -> None:
    assert messages(tmp_path, override) == []


def test_what_the_checkpoint_depends_on_stays_and_is_told_why(tmp_path: Path) -> None:
    shuffle, seed = messages(tmp_path, "data.shuffle=false", "train.lr=1e-5", "train.seed=77")
    assert shuffle.startswith("--set data.shuffle=false: data.shuffle: found false; wanted the run's own true, for ")
    assert shuffle.endswith("counts these rows, in this order: begin a new run with it")
    assert "train.seed: found 77; wanted the run's own 1234" in seed


def test_a_run_keeps_its_critic_or_its_lack(tmp_path: Path) -> None:
    assert messages(tmp_path, "algorithm.advantage_estimator=dr_grpo") == []
    (said,) = messages(tmp_path, "algorithm.advantage_estimator=gae")
    wanted = "'gae'; wanted one like the run's own 'grpo': its checkpoint holds no critic: begin a new run with it"
    assert said.endswith(wanted)


def test_what_is_set_to_what_it_is_changes_nothing(tmp_path: Path) -> None:
    assert messages(tmp_path, "data.shuffle=true") == []


def test_a_reference_that_nothing_reads_may_go(tmp_path: Path) -> None:
    """And no other may: a run of earlier would be refused with it, and could not be without it."""
    file = write_run(tmp_path)
    for given, gone, kept in (("null", 0, 1), ("deeper", 1, 1)):
        change = (f"model.reference_path={given}",)
        for own, wanted in (((), gone), (("algorithm.kl_loss_coef=0.1",), kept)):
            before = ("model.reference_path=model", *own)
            found = fixed_keys_changed(load_run_file(file, before), load_run_file(file, (*before, *change)), change)
            assert len(list(found)) == wanted, (given, own)
