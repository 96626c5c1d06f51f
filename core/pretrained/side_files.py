"""Files of a model beside its weights: config, generation config, tokenizer, chat templates."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.pretrained.quantised import KEYS
from core.pretrained.tokenizer_files import TEMPLATE_FILES

SUFFIXES = (".json", ".txt", ".jinja", ".model")
INDEX_SUFFIX = ".index.json"  # of weights


def copy_side_files(source: Path, directory: Path) -> None:
    """Copy everything that is not a weight."""
    for path in source.iterdir():
        if path.is_dir() and path.name in TEMPLATE_FILES:
            shutil.copytree(path, directory / path.name, dirs_exist_ok=True)
        elif path.is_file() and path.suffix in SUFFIXES and not path.name.endswith(INDEX_SUFFIX):
            shutil.copyfile(path, directory / path.name)


def write_dtype(directory: Path, dtype: str) -> None:
    """Say in config.json in which precision the weights are, those of a decoder in a part of its own too, and of no
    quantisation.
    """
    path = directory / "config.json"
    config = json.loads(path.read_text())
    for key in ("torch_dtype", *KEYS):
        config.pop(key, None)
    config["dtype"] = dtype
    if decoder := config.get("text_config"):
        decoder.pop("torch_dtype", None)
        decoder["dtype"] = dtype
    path.write_text(json.dumps(config, indent=2))


def write_quantisation(directory: Path, settings: Mapping[str, Any]) -> None:
    """Say in config.json how weights are kept in few bits."""
    path = directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), KEYS[0]: settings}, indent=2))
