"""Quantised checkpoints: the schemes that are known, each an entry of `SCHEMES` with a file of its own.

A scheme says which tensors of the files make a weight, from headers alone, and what the weight is. Everybody else sees
weights as if they lay there in bfloat16.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from common.mistake import Wrong
from core.pretrained.quantised.fp8_blocks import Fp8Blocks
from core.pretrained.quantised.fp8_rows import Fp8Rows
from core.pretrained.quantised.int8_rows import Int8Rows
from core.pretrained.quantised.mxfp4 import Mxfp4
from core.pretrained.quantised.packed_integers import PackedIntegers
from core.pretrained.quantised.weight import QuantisedWeight, Scheme, put_together

__all__ = ["KEYS", "QuantisedWeight", "Scheme", "put_together", "scheme_of"]

KNOWN = "in fp8 with scales of blocks or rows, in int8 with scales of rows, in packed integers, or in mxfp4"
KEYS = ("quantization_config", "compression_config")  # of config.json: where a scheme may stand
SCHEMES: dict[str, tuple[Callable[[Mapping[str, Any]], Scheme | None], ...]] = {
    "fp8": (Fp8Blocks.of,),
    "compressed-tensors": (PackedIntegers.of, Fp8Rows.of, Int8Rows.of),
    "mxfp4": (Mxfp4.of,),
}
"""By `quant_method`: makers of the scheme that a config.json asks for, which give None where it is not theirs."""


def scheme_of(directory: Path, config: Mapping[str, Any] | None = None) -> Scheme | None:
    """The scheme of a model's weights; None: they are not quantised.

    Args:
        config: the directory's config.json, where it has been read.
    Raises:
        Wrong: they are, in a way that is not known.
    """
    told = _config(directory) if config is None else config
    for key in KEYS:
        if settings := told.get(key):
            method = settings.get("quant_method") if isinstance(settings, Mapping) else None
            made = (make(settings) for make in SCHEMES.get(str(method), ()))
            scheme = next((one for one in made if one is not None), None)
            if scheme is None:
                found = f"quantised weights ({key}: {method or 'of some kind'}, {directory})"
                wanted = f"weights that are not quantised, or {KNOWN}"
                raise Wrong(found, wanted, "use the checkpoint that is not quantised")
            return scheme
    return None


def _config(directory: Path) -> Mapping[str, Any]:
    """What config.json says; nothing where there is none to read, which others tell of."""
    try:
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, Mapping) else {}
