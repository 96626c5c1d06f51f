"""What a run may live with, said in full: which key, what was found and wanted, what to do."""

from __future__ import annotations

import re
from typing import Any

import pytest

import modelcfg
from core.config.schema import RunConfig
from core.planner import notices
from core.planner.memory import Device
from tests.support.plans import CPU, GIB, H100, plan, run

ROOMY: dict[str, Any] = {"model": {"name": "qwen3-0.6b"}, "placement": {"engine_memory_fraction": 0.5}}


def noticed(config: RunConfig, device: Device = H100) -> list[str]:
    return [str(n) for n in notices(config, modelcfg.load(config.model.name or ""), plan(config, device))]


@pytest.mark.parametrize("device", [H100, Device("cuda", None)], ids=["80 GiB", "not known"])
def test_a_run_with_room_to_spare_is_not_noticed(device: Device) -> None:
    assert [text for text in noticed(run(**ROOMY), device) if "95%" in text] == []
    assert noticed(run(**ROOMY)) == []


def test_a_tight_gpu() -> None:
    config = run(train={"max_tokens_per_micro_batch": 8192})
    needed = plan(config).needed_bytes()
    tight = Device("cuda", int(needed / 0.97))
    (message,) = [text for text in noticed(config, tight) if "95%" in text]
    start, wanted, remedy = re.split("; wanted |: set ", message)
    found = f"found {plan(config, tight).needed_bytes() / GIB:.2f} GiB in phase update (trainer: "
    assert start.startswith(f"train.max_tokens_per_micro_batch: {found}")
    assert wanted == f"less than 95% of the {(tight.total_bytes or 0) / GIB:.2f} GiB of a GPU"
    assert remedy.startswith("train.max_tokens_per_micro_batch: ")


def test_a_tight_node_of_cpus() -> None:
    config = run("qwen3-4b", model={"dtype": "float32"})
    (message,) = [text for text in noticed(config, CPU) if "95%" in text]
    found = (
        f"train.max_tokens_per_micro_batch: found {plan(config, CPU).needed_bytes() / GIB:.2f} GiB in phase update ("
    )
    assert message.startswith(found)
    assert message.endswith(
        "; wanted less than 95% of the 16.00 GiB of this node: use fewer processes, or a smaller model"
    )


def requests(num_requests: int, device: Device, **placement: Any) -> list[str]:
    """What is said of this number of requests at a time."""
    config = run("qwen3-0.6b", placement={**placement, "engine_max_running_requests": num_requests})
    return [text for text in noticed(config, device) if "engine_max_running_requests" in text]


ROOM = {"engine_max_total_tokens": 4 * 2048}  # of samples of 2048 tokens


def test_requests_that_all_have_room_are_not_noticed() -> None:
    assert requests(4, H100, **ROOM) == []
    assert requests(4, H100, engine_max_total_tokens=2047) == [], "no room at all is refused"


@pytest.mark.parametrize("room", [1, 4])
def test_requests_for_which_no_share_has_room(room: int) -> None:
    found = f"{room + 1}, and a KV cache of {room * 2048} tokens"
    wanted = f"room for {room + 1} samples of 2048 tokens at once; it has room for {room}"
    remedy = f"lower it to {room}, for the rest only waits"
    message = f"placement.engine_max_running_requests: found {found}; wanted {wanted}: {remedy}"
    assert requests(room + 1, H100, engine_max_total_tokens=room * 2048) == [message]


def test_on_a_cpu_no_share_is_proposed() -> None:
    (message,) = requests(5, CPU, **ROOM)
    assert message.endswith("it has room for 4: lower it to 4, for the rest only waits")


def test_only_the_samples_of_a_step_are_asked_for() -> None:
    """16 groups of 8."""
    (message,) = requests(1000, H100, **ROOM)
    assert "found 128, and a KV cache of 8192 tokens" in message
