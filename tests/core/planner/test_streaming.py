"""Where an optimizer state streams, and what the plan says of it then."""

from __future__ import annotations

import pytest

from core.megatron.sizes.streaming import PIECE, SLOTS
from core.planner.memory import TIGHT, Device
from core.planner.stages import STAGING
from tests.support.plans import CPU, H200, plan, run

AUTO = {"train": {"optimizer_state": "auto"}}
STREAMED = {"train": {"optimizer_state": "streamed"}}


def test_a_state_that_has_room_stays_resident() -> None:
    assert not plan(run(**AUTO)).streamed
    assert plan(run(**AUTO)).phases == plan(run()).phases


def test_8b_trains_on_80_gb_because_its_state_streams() -> None:
    found, resident = plan(run("qwen3-8b", **AUTO)), plan(run("qwen3-8b"))
    assert found.streamed
    assert found.fits(share=TIGHT)
    assert not resident.fits()
    state = sum(resident.phases["update"]["trainer"][part] for part in ("masters", "moments"))
    copied = found.phases["sync"]["trainer"]["parameters"] if "parameters" not in found.staying else 0
    assert found.host_bytes == state + copied


def test_14b_trains_on_one_h200_by_plan() -> None:
    found = plan(run("qwen3-14b", **AUTO, placement={"engine_memory_fraction": 0.7}), H200)
    assert found.streamed
    assert found.fits(share=TIGHT)


def test_a_state_streams_no_earlier_than_where_it_is_tight() -> None:
    needed = plan(run()).needed_bytes(("update",))
    sizes = [Device("cuda", int(needed / share)) for share in (TIGHT - 0.01, TIGHT + 0.01)]
    assert [plan(run(**AUTO), size).streamed for size in sizes] == [False, True]


def test_pieces_count_where_they_are_more_than_the_rows_took() -> None:
    small = run("qwen3-0.6b", train={"optimizer_state": "streamed", "max_tokens_per_micro_batch": 2048})
    update = plan(small).phases["update"]["trainer"]
    rows = update["activations"] + update["logits"]
    assert update[STAGING] + rows == SLOTS * PIECE * 3 * 4
    assert STAGING not in plan(run(**STREAMED)).phases["update"]["trainer"]


@pytest.mark.parametrize("wanted", ["auto", "resident", "streamed"])
def test_on_a_cpu_only_what_is_asked_for(wanted: str) -> None:
    assert plan(run(train={"optimizer_state": wanted}), CPU).streamed == (wanted == "streamed")
