"""The refusal of a model that cannot be trained here."""

from __future__ import annotations

from common.mistake import Wrong


class UnsupportedModelError(Wrong):
    """A `config.json` that describes no model this project can train."""

    def __init__(self, found: str, remedy: str) -> None:
        super().__init__(found, "a model that this project can train", remedy)
