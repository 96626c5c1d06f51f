"""Settings that SGLang asks of a model's config.json, and what of them an engine has to be told."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def not_said(asked: Mapping[str, Any], model_dir: Path) -> dict[str, Any]:
    """What of the settings the directory's config.json does not say, or says otherwise; all, where it has none."""
    file = model_dir / "config.json"
    return _others(asked, json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {})


def _others(asked: Mapping[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
    """A part with settings of its own is compared setting by setting, and left out where all are said."""
    found: dict[str, Any] = {}
    for key, value in asked.items():
        if isinstance(value, Mapping):
            found |= {key: rest} if (rest := _others(value, said.get(key) or {})) else {}
        elif said.get(key) != value:
            found[key] = value
    return found
