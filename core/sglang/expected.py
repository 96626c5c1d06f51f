"""The weights that an engine expects: names and shapes, read from the model directory it was started from."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

from common.mistake import Wrong
from core.pretrained.few_bits import FEW_BITS
from core.pretrained.packing import Packing
from core.pretrained.stacked import experts_apart
from core.pretrained.weight_files import stored_tensors
from core.sglang.errors import WeightsRefused
from modelcfg import ModelShape, from_hf, is_carried

Shapes = dict[str, tuple[int, ...]]


@cache
def expected_tensors(model_dir: str | Path) -> Shapes:
    """Name and shape of every weight of a HuggingFace directory, from its safetensors headers.

    With tied embeddings `lm_head.weight` is left out, whether or not the checkpoint stores it, and so is what lies
    there beside the model; experts that lie there as one tensor are sent one by one. Read once per directory.

    Raises:
        WeightsRefused: there are no weights, or not all of them.
    """
    directory = Path(model_dir)
    try:
        tensors = stored_tensors(directory)
    except Wrong as wrong:
        raise WeightsRefused(str(wrong)) from wrong
    model = _shape(directory)
    shapes = {name: tensor.shape for name, tensor in experts_apart(tensors, model).items()}
    if model.tied_embeddings:
        shapes.pop("lm_head.weight", None)
    return {name: shape for name, shape in shapes.items() if not is_carried(model, name)}


@cache
def packing_of(model_dir: str | Path, word: str) -> Packing:
    """What of the model of a directory engines have in few bits that compute so. Read once per directory.

    Args:
        word: of `placement.engine_weights`.
    """
    return Packing.of(_shape(Path(model_dir)), FEW_BITS[word])


def _shape(directory: Path) -> ModelShape:
    return from_hf(json.loads((directory / "config.json").read_text()))


class Checklist:
    """Checks tensors against the expected ones as they come, and in the end that none was missing."""

    def __init__(self, expected: Shapes) -> None:
        self._expected = expected
        self._seen: set[str] = set()

    def check(self, name: str, shape: tuple[int, ...]) -> None:
        """Tick off one tensor.

        Raises:
            WeightsRefused: unknown, sent twice, or of another shape.
        """
        wanted = self._expected.get(name)
        if wanted is None:
            raise WeightsRefused(_unknown(name, self._expected))
        if tuple(shape) != wanted:
            raise WeightsRefused(f"{name} has shape {tuple(shape)}, but the engine's model wants {wanted}")
        if name in self._seen:
            raise WeightsRefused(f"{name} was sent twice in one update: each tensor must come once")
        self._seen.add(name)

    def is_complete(self) -> bool:
        """Whether all were ticked off."""
        return len(self._seen) == len(self._expected)

    def check_complete(self) -> None:
        """Raise WeightsRefused, naming some, if tensors are missing."""
        missing = [name for name in self._expected if name not in self._seen]
        if missing:
            shown = ", ".join(missing[:5]) + (", …" if len(missing) > 5 else "")
            raise WeightsRefused(f"{len(missing)} of {len(self._expected)} tensors were not sent: {shown}")


def _unknown(name: str, expected: Shapes) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, expected, n=1)
    hint = f"did you mean {near[0]}?" if near else f"it has {len(expected)} others"
    return f"the engine's model has no weight {name}: {hint}"
