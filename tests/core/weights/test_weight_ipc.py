"""Two trainer ranks of a node serve engines together: real processes, gloo and shared memory; engines are doubles.

That real engines take it is shown by the runs in tests/runs.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from core.sglang.launch import WEIGHT_LOADER
from tests.support.ipc_rank_main import NUM_BUCKETS
from tests.support.waiting import COMMAND_S


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Case -> what came of it, as each of the two ranks saw it; on a second node the same."""
    folder = tmp_path_factory.mktemp("ranks")
    main = Path(__file__).parents[2] / "support" / "ipc_rank_main.py"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "4", str(main)]
    done = subprocess.run([*command, str(folder)], capture_output=True, text=True, timeout=COMMAND_S)
    assert done.returncode == 0, done.stderr
    found = [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(4)]
    assert found[:2] == found[2:]
    return found[:2]


def buckets_of(*ranks: int) -> list[Any]:
    """What an engine has read that these ranks serve: every bucket as it was posted, and not the one after it."""
    return [[number, [10.0 * number + 1000 * rank for rank in ranks]] for number in range(NUM_BUCKETS)]


def test_all_ranks_hear_what_the_driver_alone_has_done_and_that_it_failed(cases: list[dict[str, Any]]) -> None:
    results = [None, True, 0, [3, 0]]
    assert [case["told"] for case in cases] == [[*results, "ValueError"], [*results, "DriverFailed"]]


def test_what_ranks_hand_to_the_driver_may_differ_in_length(cases: list[dict[str, Any]]) -> None:
    assert [case["uneven"] for case in cases] == [["", "x"], []]


@pytest.mark.parametrize("name", ["two ranks", "afterwards"])
def test_each_process_of_an_engine_reads_the_bucket_of_the_rank_that_serves_it(
    cases: list[dict[str, Any]], name: str
) -> None:
    """Also after a sync that was refused: nothing of it is left in the group."""
    driver, other = (case[name] for case in cases)
    assert driver["error"] == other["error"] == ""
    assert driver["read"] == {"a": buckets_of(0, 1)}
    assert driver["versions"] == {"a": "v1"}
    assert driver["texts"] == other["texts"] == NUM_BUCKETS


def test_a_bucket_is_serialised_once_for_each_reader(cases: list[dict[str, Any]]) -> None:
    driver, other = (case["other order"] for case in cases)
    assert driver["read"] == {"a": buckets_of(1, 0), "b": buckets_of(1)}
    assert (driver["texts"], other["texts"]) == (NUM_BUCKETS, 2 * NUM_BUCKETS)


def test_our_loader_is_named_where_all_engines_have_it(cases: list[dict[str, Any]]) -> None:
    """All ranks pack for it then, though the driver alone can ask."""
    assert cases[0]["replayed"]["formats"] == {"a": [WEIGHT_LOADER]}
    assert cases[0]["replayed"]["read"] == {"a": buckets_of(0, 1)}
    assert cases[0]["replayed by one"]["formats"] == {key: ["flattened_bucket"] for key in "ab"}
    assert cases[0]["replayed by one"]["read"] == {"a": buckets_of(0, 1), "b": buckets_of(1)}


def test_an_engine_that_dies_is_left_out_and_holds_nobody_up(cases: list[dict[str, Any]]) -> None:
    driver, other = (case["death"] for case in cases)
    assert driver["error"] == other["error"] == ""
    assert driver["versions"] == {"a": "v1", "b": None}
    assert driver["read"] == {"a": buckets_of(0), "b": buckets_of(1, 1)[:1]}
    assert other["texts"] == 2 * 3  # its answer to the second bucket is looked at before the fourth


def test_nothing_is_made_for_an_engine_that_dies_while_the_first_bucket_is_packed(cases: list[dict[str, Any]]) -> None:
    driver, other = (case["death at once"] for case in cases)
    assert driver["error"] == other["error"] == ""
    assert driver["versions"] == {"a": "v1", "b": None}
    assert (driver["texts"], other["texts"]) == (NUM_BUCKETS, 0)


@pytest.mark.parametrize("name", ["refusal", "refusal at once"])
def test_the_others_hear_of_a_refusal(cases: list[dict[str, Any]], name: str) -> None:
    assert [case[name]["error"] for case in cases] == ["WeightsRefused", "DriverFailed"]
    assert cases[0][name]["versions"] == {"a": None}


@pytest.mark.parametrize("name", ["driver alone", "nobody"])
def test_ranks_that_serve_nobody_take_no_part(cases: list[dict[str, Any]], name: str) -> None:
    """The second posts nothing here, and the first does not wait for it."""
    assert [case[name]["error"] for case in cases] == ["", ""]
    assert cases[0][name]["read"] == ({"a": buckets_of(0, 0)} if name == "driver alone" else {})
    assert cases[1][name]["texts"] == 0


def test_the_driver_passes_nothing_on_that_no_rank_of_the_run_has_signed(cases: list[dict[str, Any]]) -> None:
    assert [case["forged"] for case in cases] == ["NotOfThisRun", "[]"]
