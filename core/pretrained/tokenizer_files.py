"""Files of a tokenizer, looked at without transformers."""

from __future__ import annotations

import json
from pathlib import Path

TOKENIZER = "tokenizer.json"
TEMPLATE_FILES = ("chat_template.jinja", "additional_chat_templates")


def has_chat_template(directory: Path) -> bool:
    """Whether the tokenizer in a directory brings a chat template."""
    return bool(chat_template_texts(directory))


def chat_template_texts(directory: Path) -> list[str]:
    """The chat templates that the tokenizer in a directory brings, in files of their own or in its settings."""
    file, folder = (directory / name for name in TEMPLATE_FILES)
    files = [file, *sorted(folder.glob("*.jinja"))]
    found = [file.read_text(encoding="utf-8", errors="replace") for file in files if file.is_file()]
    try:
        settings = json.loads((directory / "tokenizer_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return found
    own = settings.get("chat_template") if isinstance(settings, dict) else None
    return [*found, *([own if isinstance(own, str) else json.dumps(own)] if own else [])]
