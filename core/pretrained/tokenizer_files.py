"""Files of a tokenizer, looked at without transformers."""

from __future__ import annotations

import json
from pathlib import Path

TOKENIZER = "tokenizer.json"
TEMPLATE_FILES = ("chat_template.jinja", "additional_chat_templates")


def has_chat_template(directory: Path) -> bool:
    """Whether the tokenizer in a directory brings a chat template, in a file of its own or in its settings."""
    if any((directory / name).exists() for name in TEMPLATE_FILES):
        return True
    try:
        settings = json.loads((directory / "tokenizer_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(settings, dict) and bool(settings.get("chat_template"))
