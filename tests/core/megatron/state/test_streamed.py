"""An optimizer state that streams gives the bits of one that is resident, and each loads the other's checkpoints."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.ranks import run_ranks
from tests.support.tiny_models import EXPERTS, tiny_models

KIND = "qwen3-tied"
TRAIN = {"weight_decay": 0.1, "clip_grad": 0.5, "lr_warmup_steps": 2}
BF16 = {"model": {"dtype": "bfloat16"}}
CUT = {"tensor_parallel": 2, "sequence_parallel": True, "expert_tensor_parallel": 2}
SHARED = {"use_distributed_optimizer": True}
PIECE = 1024  # elements: tensors are cut, and pieces have several tensors
LAYOUTS: dict[str, tuple[int, str, dict[str, Any]]] = {
    "fp32": (1, KIND, {"train": TRAIN}),
    "bf16": (1, KIND, {**BF16, "train": TRAIN}),
    "bf16-dp2-shared": (2, KIND, {**BF16, "train": {**TRAIN, **SHARED}}),
    "bf16-tp2": (2, KIND, {**BF16, "train": TRAIN, "placement": {"tensor_parallel": 2}}),
    "bf16-ep2-shared": (2, EXPERTS, {**BF16, "train": {**TRAIN, **SHARED}, "placement": {"expert_parallel": 2}}),
    "bf16-tp2-etp2-shared": (2, EXPERTS, {**BF16, "train": {**TRAIN, **SHARED}, "placement": CUT}),
}
FIRST, MORE = [["update", seed] for seed in (0, 1)], [["update", seed] for seed in (2, 3)]


def _streamed(config: dict[str, Any]) -> dict[str, Any]:
    return {**config, "train": {**config["train"], "optimizer_state": "streamed"}}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    folder = tmp_path_factory.mktemp("streamed")
    models = tiny_models((KIND, EXPERTS), folder)
    found: dict[str, list[Any]] = {}
    for size in (1, 2):
        layouts = {name: (models[kind], config) for name, (s, kind, config) in LAYOUTS.items() if s == size}
        writing: dict[str, Any] = {}
        reading: dict[str, Any] = {}
        for name, (model, config) in layouts.items():
            resident, streamed = f"resident {name}", f"streamed {name}"
            for own, other, how in ((resident, streamed, config), (streamed, resident, _streamed(config))):
                case = {"model": model, "config": how, "piece": PIECE}
                saved = str(folder / own)
                writing[own] = {**case, "actions": [*FIRST, ["save_beside", saved], *MORE, "park", "checksums", *FIRST]}
                # what the other has saved: all writers are done by then
                reading[f"{own} after {other}"] = {**case, "actions": [["load", str(folder / other)], *MORE]}
        for phase, cases in (("write", writing), ("read", reading)):
            found |= run_ranks(folder / f"{phase}{size}", size, cases)
    return found


@pytest.mark.parametrize("layout", LAYOUTS)
def test_streamed_is_resident_bit_for_bit(outcomes: dict[str, list[Any]], layout: str) -> None:
    resident, streamed = outcomes[f"resident {layout}"], outcomes[f"streamed {layout}"]
    assert len(resident) == 9, resident
    assert resident[0] != resident[1]
    assert "moments" in resident[5][0]
    assert [held for part, held in enumerate(streamed) if part != 5] == resident[:5] + resident[6:]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_masters_and_moments_are_never_on_the_device(outcomes: dict[str, list[Any]], layout: str) -> None:
    assert outcomes[f"streamed {layout}"][5] == [["gradients", "parameters", "reference"], 0]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_goes_on_from_the_other(outcomes: dict[str, list[Any]], layout: str) -> None:
    wanted = outcomes[f"resident {layout}"][3:5]
    assert len(wanted) == 2, wanted
    assert outcomes[f"streamed {layout} after resident {layout}"][1:] == wanted
    assert outcomes[f"resident {layout} after streamed {layout}"][1:] == wanted
