"""Typed sections made from the tree of a run file, with every mistake turned into a `Mistake`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from common.mistake import Mistake
from common.schema_mistakes import schema_mistakes
from common.yaml_document import Document
from core.config.epochs import one_of_both
from core.config.keys import RUN_KEYS
from core.config.schema import RunConfig


def validate(document: Document) -> tuple[RunConfig, list[Mistake]]:
    """The run file's sections, and all mistakes in them.

    With mistakes, the result holds only the sections that have none; reading another one raises AttributeError.
    """
    mistakes = list(one_of_both(document))
    tree = RUN_KEYS.with_empty(document.tree)
    try:
        # through JSON, because there pydantic can be strict about numbers and yet take a list for a tuple
        return RunConfig.model_validate_json(json.dumps(tree), strict=True), mistakes
    except ValidationError as error:
        broken = {str(details["loc"][0]) for details in error.errors(include_url=False)}
        return _sound_part(tree, broken), mistakes + schema_mistakes(error, document, RUN_KEYS)


def _sound_part(tree: Mapping[str, Any], broken: set[str]) -> RunConfig:
    sound: dict[str, Any] = {}
    for name, field in RunConfig.model_fields.items():
        if name in broken:
            continue
        if name not in tree:
            sound[name] = field.get_default()
        elif name in RUN_KEYS.sections():
            assert field.annotation is not None
            sound[name] = field.annotation.model_validate_json(json.dumps(tree[name]), strict=True)
        else:
            sound[name] = tree[name]
    config = RunConfig.model_construct(_fields_set=set(sound), **sound)
    for name in broken & set(RunConfig.model_fields):
        config.__dict__.pop(name, None)  # model_construct fills in defaults
    return config
