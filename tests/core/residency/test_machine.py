"""The state machine against fakes: order of calls, refusals, messages."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch

from core.residency import ENGINE, ENGINE_PARTS, EVERYTHING, TABLE, TRAINER, TRAINER_PARTS, table
from core.residency.machine import Residency, ResidencyError
from core.residency.memory import describe


class FakeOwner:
    def __init__(self, name: str, parts: tuple[str, ...], calls: list[str], stubborn: bool = False) -> None:
        self.name, self._parts, self._calls, self._stubborn = name, set(parts), calls, stubborn

    def held(self) -> Mapping[str, int]:
        return {part: 2**30 for part in sorted(self._parts)}

    def shrink_to(self, parts: frozenset[str]) -> None:
        if self._parts - parts and not self._stubborn:
            self._calls.append(f"{self.name} gives {len(self._parts - parts)}")
            self._parts &= parts

    def grow_to(self, parts: frozenset[str]) -> None:
        if parts - self._parts:
            self._calls.append(f"{self.name} takes {len(parts - self._parts)}")
            self._parts |= parts


def make(stubborn: bool = False) -> tuple[Residency, list[str]]:
    calls: list[str] = []
    trainer = FakeOwner(TRAINER, TRAINER_PARTS, calls)
    engine = FakeOwner(ENGINE, ENGINE_PARTS, calls, stubborn)
    return Residency([trainer, engine], lambda: calls.append("agree")), calls


def test_a_step_gives_up_before_it_takes() -> None:
    residency, calls = make()
    for phase in ("sync", "rollout", "score", "update", "save", "sync"):
        residency.enter(phase)
        calls.append(phase)
    assert calls == [
        *("trainer gives 5", "engine gives 2", "agree", "sync"),
        *("trainer gives 2", "agree", "engine takes 2", "rollout"),
        *("engine gives 3", "agree", "score"),
        *("agree", "trainer takes 7", "update"),
        *("trainer gives 1", "agree", "save"),
        *("trainer gives 4", "agree", "engine takes 1", "sync"),
    ]


def test_what_has_room_beside_the_engine_never_leaves() -> None:
    calls: list[str] = []
    owners = [FakeOwner(TRAINER, TRAINER_PARTS, calls), FakeOwner(ENGINE, ENGINE_PARTS, calls)]
    residency = Residency(owners, lambda: None, table=table({"masters", "moments"}))
    for phase in (*TABLE, "sync"):
        residency.enter(phase)
        assert {"masters", "moments"} <= set(owners[0].held())
    assert calls == [
        *("trainer gives 3", "engine gives 2"),  # sync
        *("trainer gives 2", "engine takes 2", "engine gives 3"),  # rollout, eval, score
        *("trainer takes 5", "trainer gives 1"),  # update, save
        *("trainer gives 2", "engine takes 1"),  # sync
    ]


def test_who_still_holds_something_is_named() -> None:
    residency, calls = make(stubborn=True)
    with pytest.raises(
        ResidencyError, match=r"trainer wants .* in phase update while the engine still holds"
    ) as caught:
        residency.enter("update")
    assert "cuda_graph, kv_cache, weights: it must give them up first. trainer: base 1.00, critic" in str(caught.value)
    assert calls == ["agree"]


def test_parts_that_the_phase_does_not_grant_are_refused() -> None:
    residency, _ = make()
    residency.enter("rollout")
    with pytest.raises(ResidencyError, match="wants gradients in phase rollout, which grants it nothing: enter"):
        residency.acquire(TRAINER, frozenset({"gradients"}))


def test_unknown_phase() -> None:
    residency, _ = make()
    with pytest.raises(ResidencyError, match="phase 'train' is not in the residency table: choose from sync, rollout"):
        residency.enter("train")


def test_borrowing_another_phase_goes_back() -> None:
    residency, calls = make()
    residency.enter("rollout")
    del calls[:]
    with residency.borrowed("sync"):
        calls.append("inside")
    assert calls == [
        "engine gives 2",
        "agree",
        "trainer takes 2",
        "inside",
        "trainer gives 2",
        "agree",
        "engine takes 2",
    ]
    assert residency.phase == "rollout"


def test_out_of_memory_says_who_held_what() -> None:
    residency, _ = make()
    with pytest.raises(ResidencyError) as caught, residency.inside("update", 7):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore")
    text = str(caught.value)
    assert text.startswith("out of GPU memory in phase update of step 7: ")
    assert "Held: trainer: base 1.00, critic 1.00, gradients 1.00, masters 1.00" in text
    assert "engine: nothing" in text
    assert "Lower train.max_tokens_per_micro_batch" in text
    assert "placement.offload" not in text
    assert text.endswith("(CUDA out of memory. Tried to allocate 2.00 GiB.)")


def test_where_everybody_keeps_everything_nothing_moves_and_a_lack_of_memory_is_explained() -> None:
    calls: list[str] = []
    owners = [FakeOwner(TRAINER, TRAINER_PARTS, calls), FakeOwner(ENGINE, ENGINE_PARTS, calls)]
    residency = Residency(owners, lambda: None, table=EVERYTHING)
    for phase in EVERYTHING:
        residency.enter(phase)
    with pytest.raises(ResidencyError) as caught, residency.inside("update", 7):
        raise torch.OutOfMemoryError("CUDA out of memory.")
    assert not calls
    assert "engine: cuda_graph 1.00, kv_cache 1.00, weights 1.00 GiB" in str(caught.value)
    assert "set placement.offload to on, train.cuda_graphs to false, or lower" in str(caught.value)
    alone = Residency(owners[:1], lambda: None, table=EVERYTHING)
    with pytest.raises(ResidencyError, match=r"GPUs, set train\.cuda_graphs to false, or"), alone.inside("update", 7):
        raise torch.OutOfMemoryError("CUDA out of memory.")


def test_memory_that_nccl_lacks_is_explained_too_and_other_errors_of_it_stay_what_they_are() -> None:
    residency, _ = make()
    lacks = torch.distributed.DistBackendError("NCCL error\nLast error:\nFailed to CUDA calloc async 4 bytes")
    with pytest.raises(ResidencyError, match="phase update of step 7"), residency.inside("update", 7):
        raise lacks
    with pytest.raises(torch.distributed.DistBackendError, match="closed by peer"), residency.inside("update", 8):
        raise torch.distributed.DistBackendError("NCCL error: connection closed by peer")


def test_every_phase_of_the_loop_has_a_row_and_nobody_overlaps_by_mistake() -> None:
    from core.loop.phases import PHASES

    assert set(TABLE) == set(PHASES)
    both = {phase for phase, holding in TABLE.items() if holding.trainer and holding.engine}
    assert both == {"sync"}


def test_times_are_taken_once() -> None:
    residency, _ = make()
    residency.enter("rollout")
    assert residency.take_seconds() > 0
    assert residency.take_seconds() == 0


def test_sizes_that_are_not_known_are_said_to_be() -> None:
    assert describe({"engine": {"weights": 0}, "trainer": {}}) == "engine: weights (size not known); trainer: nothing"
