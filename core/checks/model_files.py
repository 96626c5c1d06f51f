"""What a model directory says of the model: its `config.json`, and the shape that it makes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import modelcfg
from core.config.paths import PACKAGE_PREFIX
from core.config.schema import ModelConfig


class ModelFiles:
    """The `config.json` of model directories. Each is read once: all checks of one command share one of these."""

    def __init__(self) -> None:
        self._read: dict[str, dict[str, Any] | None] = {}

    def hf_config(self, path: str | None) -> dict[str, Any] | None:
        """The `config.json` in a model directory; None if there is none to read."""
        if path is None or path.startswith(PACKAGE_PREFIX):
            return None
        if path not in self._read:
            self._read[path] = _read(Path(path) / "config.json")
        return self._read[path]

    def shape(self, model: ModelConfig) -> modelcfg.ModelShape | None:
        """The checkpoint's own shape, else that of the name; None if neither can be known here."""
        hf_config = self.hf_config(model.path)
        try:
            if hf_config is not None:
                return modelcfg.from_hf(hf_config, name=model.name or Path(model.path).name)
            return modelcfg.load(model.name) if model.name is not None else None
        except ValueError:  # reported by `core.checks.model.name_and_shape`
            return None


def _read(path: Path) -> dict[str, Any] | None:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return config if isinstance(config, dict) else None
