"""The texts of `--set`, put into the tree of a run file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from common.mistake import Mistake
from common.yaml_dialect import Reader, compose
from common.yaml_document import Document, KeyPath, plain, refused_nodes


def apply_overrides(document: Document, overrides: Sequence[str]) -> list[Mistake]:
    """Sets `a.b=value` in the tree, the value read as YAML, and gives what is wrong with the texts themselves.

    Whether the key exists is not asked here: the schema is asked once, of the whole tree.
    """
    mistakes = []
    for override in overrides:
        key, equals, text = override.partition("=")
        path = tuple(part.strip() for part in key.split("."))
        if not equals or not all(path):
            mistakes.append(_mistake(override, "no key=value", "key=value", "write e.g. --set train.lr=1e-6"))
            continue
        try:
            _set(document.tree, path, _value(text, document.kind.reader))
        except IndexError:
            remedy = "entries count from 0; add one in the run file"
            mistakes.append(_mistake(override, "no such entry in the list", "an entry that is there", remedy))
        except (yaml.YAMLError, ValueError, RecursionError):
            remedy = "quote it twice, once for the shell and once for YAML"
            mistakes.append(_mistake(override, f"the value {text!r}", "a YAML value", remedy))
        document.overrides[path] = override
    return mistakes


def _value(text: str, reader: Reader) -> Any:
    """The value that the text of an override spells.

    Raises:
        yaml.YAMLError, ValueError: no value that a run file could have.
    """
    node = compose(text, reader)
    if node is None:
        return None
    if any(refused_nodes(node, reader)):
        raise ValueError(text)
    return plain(node, reader, {})


def _set(tree: Any, path: KeyPath, value: Any) -> None:
    """Sets the value, making the sections above it; below a list, a key is an index into it.

    Raises:
        IndexError: the list has no such entry.
    """
    key: Any = int(path[0]) if isinstance(tree, list) else path[0]
    if len(path) == 1:
        tree[key] = value
        return
    below = tree[key] if isinstance(tree, list) else tree.get(key)
    if not isinstance(below, dict) and not (isinstance(below, list) and path[1].isdigit()):
        below = tree[key] = {}
    _set(below, path[1:], value)


def _mistake(override: str, found: str, wanted: str, remedy: str) -> Mistake:
    return Mistake("", None, found, wanted, remedy, override)
