"""The models known by name: one YAML file each, under `modelcfg/models/`."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import yaml

from common.mistake import Wrong
from common.nearest import nearest
from modelcfg.shape import ModelShape

FOLDER = Path(__file__).parent / "models"


class UnknownModelError(Wrong):
    """No model of that name."""


@cache
def _sorted_names() -> tuple[str, ...]:
    return tuple(sorted((file.stem for file in FOLDER.glob("*.yaml")), key=_family_then_size))


def names() -> list[str]:
    """All known names, by family and then by size."""
    return list(_sorted_names())


def load(name: str) -> ModelShape:
    """The shape of a model known by name.

    Raises:
        UnknownModelError: with the nearest known name, or with all names if none is near.
    """
    if name not in _sorted_names():
        suggestion = nearest(name, names())
        remedy = f"did you mean {suggestion}?" if suggestion else f"choose one of {', '.join(names())}"
        raise UnknownModelError(f"the model name {name!r}", "a name that `ebbtide models` lists", remedy)
    return ModelShape.model_validate(yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8")))


def load_hub(name: str) -> ModelShape | None:
    """The shape of a model by the name that it has on the hub; None if it is not known."""
    return next((shape for shape in map(load, names()) if shape.hub == name), None)


def _family_then_size(name: str) -> tuple[str, float]:
    """The size is the last part of the name, or the last but one if that of the active parameters follows: 30b-a3b."""
    match = re.fullmatch(r"(.+)-([\d.]+)([mb])(?:-a[\d.]+b)?", name)
    if match is None:
        return name, 0.0
    return match[1], float(match[2]) * (1e9 if match[3] == "b" else 1e6)
