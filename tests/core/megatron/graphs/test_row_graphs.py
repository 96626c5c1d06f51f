"""What a captured backward pass does, here kernel by kernel: gradients get where Megatron's own hooks bring them."""

from __future__ import annotations

from pathlib import Path

from tests.support.ranks import run_ranks
from tests.support.tiny_models import tiny_models


def test_aliases_bring_the_gradients_of_their_parameters(tmp_path: Path) -> None:
    """With an output layer that is the embedding, and one of its own."""
    kinds = ("qwen3-tied", "llama")
    models = tiny_models(kinds, tmp_path)
    cases = {kind: {"model": models[kind], "actions": ["aliases_bring_gradients"]} for kind in kinds}
    found = run_ranks(tmp_path / "ranks", 1, cases)
    for kind in kinds:
        ((*numbers,),) = found[kind]
        norms, differences = numbers[::2], numbers[1::2]
        assert len(norms) > 10, found
        assert min(norms) > 0
        assert max(differences) < 1e-5 * max(norms)
