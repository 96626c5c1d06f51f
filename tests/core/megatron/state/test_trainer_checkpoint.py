"""A fresh process that loads a checkpoint goes on as if nothing had happened; other layouts can load it too."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.ranks import run_ranks
from tests.support.tiny_models import tiny_model

TP2 = {"placement": {"tensor_parallel": 2}}
PP2 = {"placement": {"pipeline_parallel": 2}}
DISTRIBUTED = {"train": {"use_distributed_optimizer": True}}
WRITERS: dict[str, tuple[int, dict[str, Any]]] = {
    "one": (1, {}),
    "one-distopt": (1, DISTRIBUTED),
    "tp2": (2, TP2),
    "tp2-distopt": (2, {**TP2, **DISTRIBUTED}),
    "dp2-distopt": (2, DISTRIBUTED),
    "pp2": (2, PP2),
}
# checkpoint, number of ranks and config that load it
OTHERS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "tp2 as one": ("tp2", 1, {}),
    "tp2-distopt as one-distopt": ("tp2-distopt", 1, DISTRIBUTED),
    "dp2-distopt as one-distopt": ("dp2-distopt", 1, DISTRIBUTED),
    "tp2 as dp2": ("tp2", 2, {}),
    "tp2-distopt as dp2-distopt": ("tp2-distopt", 2, DISTRIBUTED),
    "one as tp2": ("one", 2, TP2),
    "pp2 as tp2": ("pp2", 2, TP2),
}
# checkpoints of when decay reached norms and biases
DECAYED: dict[str, dict[str, Any]] = {
    "decayed": {"train": {"weight_decay": 0.1}},
    "decayed-distopt": {"train": {"weight_decay": 0.1, "use_distributed_optimizer": True}},
}
MORE = [["update", 1], ["update", 2]]
KIND = "qwen3-tied"


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    folder = tmp_path_factory.mktemp("checkpoints")
    model = str(tiny_model(KIND, folder / "model", vocab_size=509))  # padded under two tensor ranks
    result: dict[str, list[Any]] = {}

    def launch(phase: str, size: int, cases: dict[str, tuple[dict[str, Any], list[Any]]]) -> None:
        full = {name: {"model": model, "config": c, "actions": actions} for name, (c, actions) in cases.items()}
        found = run_ranks(folder / f"{phase}{size}", size, full, fresh=phase == "read")
        result.update({f"{phase} {name}": value for name, value in found.items()})

    for size in (1, 2):
        writers = {name: config for name, (s, config) in WRITERS.items() if s == size}
        saving = {
            name: (
                config,
                [
                    ["update", 0],
                    ["save", str(folder / name)],
                    "children",
                    ["save_beside", str(folder / f"{name}-beside"), *MORE[0]],
                    MORE[1],
                ],
            )
            for name, config in writers.items()
        }
        if size == 1:
            saving |= {
                name: (config, ["decay_everything", ["update", 0], ["save", str(folder / name)], "decays"])
                for name, config in DECAYED.items()
            }
        launch("write", size, saving)
    for size in (1, 2):
        readers = {name: (f"{name}-beside", config) for name, (s, config) in WRITERS.items() if s == size}
        readers |= {name: (source, config) for name, (source, s, config) in OTHERS.items() if s == size}
        loading = {
            name: (config, [["load", str(folder / source)], "steps_are_apart", *MORE])
            for name, (source, config) in readers.items()
        }
        if size == 1:
            loading |= {name: (config, [["load", str(folder / name)], "decays"]) for name, config in DECAYED.items()}
        launch("read", size, loading)
    return result


@pytest.mark.parametrize("name", WRITERS)
def test_resumed_run_is_the_same_bit_for_bit(outcomes: dict[str, list[Any]], name: str) -> None:
    """Though an update went on while the checkpoint was written."""
    assert len(outcomes[f"read {name}"]) == 4, outcomes[f"read {name}"]
    assert outcomes[f"read {name}"][2:] == outcomes[f"write {name}"][3:]


@pytest.mark.parametrize("name", OTHERS)
def test_other_layout_goes_on_alike(outcomes: dict[str, list[Any]], name: str) -> None:
    assert len(outcomes[f"read {name}"]) == 4, outcomes[f"read {name}"]
    source = OTHERS[name][0]
    for found, wanted in zip(outcomes[f"read {name}"][2:], outcomes[f"write {source}"][3:], strict=True):
        for metric, value in wanted["metrics"].items():
            if metric.startswith("train/"):
                assert found["metrics"][metric] == pytest.approx(value, rel=1e-5, abs=1e-6), metric


@pytest.mark.parametrize("name", [*WRITERS, *OTHERS])
def test_every_parameter_has_its_own_step(outcomes: dict[str, list[Any]], name: str) -> None:
    """One step tensor for all would advance once per parameter: the first loss is right, the second is not."""
    assert outcomes[f"read {name}"][1] is True


@pytest.mark.parametrize("name", WRITERS)
def test_saving_leaves_no_process_behind(outcomes: dict[str, list[Any]], name: str) -> None:
    """Megatron would start a queue server by importing the main module again."""
    assert outcomes[f"write {name}"][2] == []


@pytest.mark.parametrize("name", DECAYED)
def test_old_checkpoint_brings_no_decay_of_norms_back(outcomes: dict[str, list[Any]], name: str) -> None:
    assert outcomes[f"write {name}"][3] == [[0.0, 0.1], [1.0, 0.1]]
    assert outcomes[f"read {name}"][1] == [[0.0, 0.0], [1.0, 0.1]]
