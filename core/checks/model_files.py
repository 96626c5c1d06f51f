"""What a model directory says of the model: its `config.json`, the shape that it makes, the headers of its weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import modelcfg
from core.config.hub import last_name
from core.config.paths import PACKAGE_PREFIX
from core.config.sections.model import ModelConfig
from core.pretrained.weight_files import ModelTensor, stored_tensors


class ModelFiles:
    """Model directories, each read once: all checks of one command share one of these."""

    def __init__(self) -> None:
        self._read: dict[str, dict[str, Any] | None] = {}
        self._tensors: dict[str, dict[str, ModelTensor]] = {}

    def hf_config(self, path: str | None) -> dict[str, Any] | None:
        """The `config.json` in a model directory; None if there is none to read."""
        if path is None or path.startswith(PACKAGE_PREFIX):
            return None
        if path not in self._read:
            self._read[path] = _read(Path(path) / "config.json")
        return self._read[path]

    def shape(self, model: ModelConfig) -> modelcfg.ModelShape | None:
        """The checkpoint's own shape, else that of the name, its own or the hub's; None if none can be known here."""
        try:
            if self.hf_config(model.path) is not None:
                return self.own_shape(model.path, model.name)
            return modelcfg.load(model.name) if model.name is not None else modelcfg.load_hub(model.path)
        except ValueError:  # reported by `core.checks.model.name_and_shape`
            return None

    def own_shape(self, path: str, name: str | None = None) -> modelcfg.ModelShape | None:
        """The shape that the `config.json` of a directory describes; None if it describes none that can be trained."""
        hf_config = self.hf_config(path)
        try:
            return modelcfg.from_hf(hf_config, name=name or last_name(path)) if hf_config is not None else None
        except ValueError:  # as above
            return None

    def tensors(self, path: str) -> dict[str, ModelTensor]:
        """What the weights of a model directory are, by name.

        Raises:
            Wrong: as `core.pretrained.weight_files.stored_tensors`.
        """
        if path not in self._tensors:
            self._tensors[path] = stored_tensors(Path(path), self.hf_config(path))
        return self._tensors[path]


def _read(path: Path) -> dict[str, Any] | None:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return config if isinstance(config, dict) else None
