"""Flags that a launch has in YAML files, where these are here: slime sets their keys over those of the command line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from common import yaml_dialect
from common.yaml_document import FileKind, parse_document
from core.config.other_names import names_of
from launchers.moving_in.draft import Draft
from launchers.moving_in.flags import Flag, Flags
from launchers.moving_in.local_files import text_of_file

KIND = FileKind("file of flags", "a mapping", "docs/moving-in.md", yaml_dialect.Typed, "give its path")
OF_THE_CRITIC = {"lr": "critic.lr", "lr_warmup_iters": "critic.lr_warmup_steps"}
WITHOUT_MEANING = ("save", "load", "num_nodes", "num_gpus_per_node")
"""Keys of a role that are of slime's own folders, or that slime does not read."""


def flags_of_files(flags: Flags, draft: Draft) -> None:
    """Take in what `--custom-config-path` and `--megatron-config-path` say; a file that is not here stays a flag."""
    if (flag := flags.look("custom_config_path")) and (tree := _tree(flag)) is not None:
        flags.take(flag.name)
        others = [name for name in _add(flags, tree) if name not in names_of("slime")]
        if others:
            do = "set rollout.generate_options, reward.options, algorithm.loss_options"
            draft.lose(flag, f"{', '.join(others)}: options are keys of the run file", do, "code")
        else:
            draft.skip(flag, "its keys are read as flags")
    if (flag := flags.look("megatron_config_path")) and (tree := _tree(flag)) is not None:
        flags.take(flag.name)
        list(_add(flags, _of_role(tree, "actor")))
        _critic(flags, draft, flag, _of_role(tree, "critic"))


def _tree(flag: Flag) -> dict[str, Any] | None:
    """What the file holds; None: it is not here, or is no mapping."""
    text = text_of_file(flag.text)
    if text is None:
        return None
    document, mistakes = parse_document(text, KIND)
    return None if mistakes else document.tree


def _add(flags: Flags, said: Mapping[str, Any]) -> Iterator[str]:
    """Set the keys that are flags, and give the names of all."""
    for name, value in said.items():
        if name in names_of("slime") and name not in WITHOUT_MEANING:
            flags.put(name, value)
        yield name


def _of_role(tree: Mapping[str, Any], role: str) -> Mapping[str, Any]:
    entries = tree.get("megatron")
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, dict) and entry.get("role") == role:
            found = entry.get("overrides") or entry.get("args")
            return found if isinstance(found, dict) else {}
    return {}


def _critic(flags: Flags, draft: Draft, flag: Flag, said: Mapping[str, Any]) -> None:
    if flags.said("advantage_estimator") != "ppo":
        draft.skip(flag, "its keys of the actor are read as flags, and without ppo there is no critic")
        return
    for name, key in OF_THE_CRITIC.items():
        if isinstance(said.get(name), int | float):
            draft.put(key, said[name], flag)
    others = [name for name in said if name not in (*OF_THE_CRITIC, *WITHOUT_MEANING)]
    if others:
        do = "set train's, which are of both, or leave it out"
        draft.lose(flag, f"{', '.join(others)}: a critic has few settings of its own", do, "result")
