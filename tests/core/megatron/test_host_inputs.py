"""Inputs of recomputed layers that wait on the host: the same bits, and chunks that are used again."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from core.megatron.layers import kept_on_host
from core.megatron.layers.kept_on_host import HostInputs
from tests.support.ranks import OVER_TWO, run_ranks
from tests.support.tiny_models import EXPERTS, tiny_models

FULL = {"recompute": "full"}
ALONE: dict[str, dict[str, dict[str, Any]]] = {
    "plain": {},
    "one layer": {"train": {"recompute_layers": 1}},
    "lora": {"train": {"lora": {"rank": 4, "alpha": 8}}},
    "critic": {"algorithm": {"advantage_estimator": "gae"}},
}
ACTIONS = [["update", 0], ["update", 1], ["log_probs", 3]]
CASES = [f"llama {name}" for name in (*ALONE, *OVER_TWO)] + [f"{EXPERTS} plain"]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    folder = tmp_path_factory.mktemp("host-inputs")
    models = tiny_models(("llama", EXPERTS), folder)

    def cases(kind: str, settings: dict[str, dict[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
        return {
            f"{kind} {name}{' host' * (where == 'host')}": {
                "model": models[kind],
                "config": {**config, "train": {**FULL, **config.get("train", {}), "recompute_inputs": where}},
                "actions": ACTIONS,
            }
            for name, config in settings.items()
            for where in ("device", "host")
        }

    one = cases("llama", ALONE) | cases(EXPERTS, {"plain": {}})
    return run_ranks(folder / "1", 1, one) | run_ranks(folder / "2", 2, cases("llama", OVER_TWO))


@pytest.mark.parametrize("name", CASES)
def test_the_same_bits(outcomes: dict[str, list[Any]], name: str) -> None:
    assert outcomes[f"{name} host"] == outcomes[name]
    assert len(outcomes[name]) == len(ACTIONS), outcomes[name]


class _Layer(torch.nn.Linear):
    def forward(self, hidden_states: Tensor) -> Tensor:  # type: ignore[override]
        """Another [T, 1, H]."""
        return super().forward(hidden_states).tanh()


class _Decoder(torch.nn.Module):
    """Layers of which the first are recomputed, as Megatron's are."""

    def __init__(self, num_layers: int, recomputed: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = torch.nn.ModuleList(_Layer(32, 32) for _ in range(num_layers))
        self.recomputed = recomputed

    def forward(self, hidden: Tensor) -> Tensor:
        """[T, 1, H]"""
        for number, layer in enumerate(self.layers):
            if self.training and number < self.recomputed:
                hidden = checkpoint(lambda x, layer=layer: layer(hidden_states=x), hidden, use_reentrant=True)
            else:
                hidden = layer(hidden_states=hidden)
        return hidden


def _row(tokens: int) -> Tensor:
    return torch.randn(tokens, 1, 32, generator=torch.Generator().manual_seed(tokens)).requires_grad_()


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize(("layers", "recomputed"), [(6, 6), (6, 3), (3, 1)])
def test_rows_in_flight_wait_beside_each_other(
    layers: int, recomputed: int, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two rows go forward before the first goes back; the same again, in the same chunks."""
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU here")
    monkeypatch.setattr(kept_on_host, "HOST_CHUNK", 1024)  # an input of 20 tokens takes three of them
    gradients = []
    for on_host in (False, True):
        decoder = _Decoder(layers, recomputed).to(device)
        inputs = HostInputs(decoder, recomputed) if on_host else None
        found = []
        for _ in range(2):
            rows = [_row(20), _row(9)]
            for out in [decoder(row.to(device)) for row in rows]:
                out.square().sum().backward()
            found += [row.grad for row in rows]
            if inputs is not None:
                assert inputs.chunks.num_bytes == (recomputed - 1) * (3 + 2) * 1024
        gradients.append([*found, *(parameter.grad for parameter in decoder.parameters())])
    for ours, theirs in zip(*gradients, strict=True):
        assert ours is not None
        assert torch.equal(ours, theirs)


def test_what_does_not_go_backward_takes_nothing() -> None:
    decoder = _Decoder(3, 3)
    inputs = HostInputs(decoder, 3)
    with torch.no_grad():
        decoder(_row(9))
    decoder.eval()(_row(9))
    assert inputs.chunks.num_bytes == 0


def test_only_the_last_input_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    packed, pack = list[object](), kept_on_host._Waiting.pack

    def noted(waiting: kept_on_host._Waiting, saved: Tensor) -> object:
        packed.append(pack(waiting, saved))
        return packed[-1]

    monkeypatch.setattr(kept_on_host._Waiting, "pack", noted)
    decoder = _Decoder(5, 5)
    HostInputs(decoder, 5)
    decoder(_row(20))
    assert [isinstance(one, Tensor) for one in packed] == [False] * 4 + [True]
