"""Paths of a run file: what is relative in it is relative to the folder it lies in.

Left as they are: `package:NAME`, `package.module:function`, and `runs_dir`, which is relative to the working directory.
A hub's name becomes the folder in the hub's cache, of the version that is there now: a run that goes on keeps it.
"""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import BaseModel

from core.config import hub
from core.config.schema import RunConfig
from core.config.sections.data import DataConfig
from core.config.sections.eval import EvalSet
from core.config.sections.placement import PlacementConfig
from core.doors import DOORS, ONE_TURN
from core.plugins import split_function

PACKAGE_PREFIX = "package:"
DRAFT_MODEL = "speculative_draft_model_path"  # the only path among the options of engines that is looked up here


def resolve_paths(config: RunConfig, folder: Path) -> RunConfig:
    """`config` with absolute paths. A section that `config` lacks (it had mistakes) is passed over."""
    resolved: dict[str, BaseModel] = {}
    if hasattr(config, "model"):
        model = config.model
        given = {"path": model.path, "reference_path": model.reference_path}
        paths = {key: _file(path, folder, "model") for key, path in given.items()}
        resolved["model"] = model.model_copy(update=paths)
    if hasattr(config, "placement"):
        resolved["placement"] = _placement(config.placement, folder)
    if hasattr(config, "data"):
        resolved["data"] = _data(config.data, folder)
    if hasattr(config, "reward"):
        reward = config.reward
        changes = {"type": _function(reward.type, folder), "path": _function(reward.path, folder)}
        resolved["reward"] = reward.model_copy(update=changes)
    if hasattr(config, "eval"):
        sets = {name: _set(data, folder) for name, data in config.eval.sets.items()}
        resolved["eval"] = config.eval.model_copy(update={"sets": sets})
    if hasattr(config, "logging"):
        sinks = [sink.model_copy(update={"name": _function(sink.name, folder)}) for sink in config.logging.sinks]
        resolved["logging"] = config.logging.model_copy(update={"sinks": tuple(sinks)})
    return _doors(config.model_copy(update=resolved), folder)


def _doors(config: RunConfig, folder: Path) -> RunConfig:
    for door in DOORS:
        section, _, key = door.key.partition(".")
        name = getattr(getattr(config, section, None), key, None)
        if isinstance(name, str) and name not in door.builtins:
            changed = getattr(config, section).model_copy(update={key: _function(name, folder)})
            config = config.model_copy(update={section: changed})
    if hasattr(config, "rollout"):
        tools = tuple(_function(tool, folder) or tool for tool in config.rollout.tools)
        config = config.model_copy(update={"rollout": config.rollout.model_copy(update={"tools": tools})})
    return config


def _placement(placement: PlacementConfig, folder: Path) -> PlacementConfig:
    options, path = placement.engine_options, placement.engine_options.get(DRAFT_MODEL)
    if not isinstance(path, str):
        return placement
    return placement.model_copy(update={"engine_options": {**options, DRAFT_MODEL: _file(path, folder, "model")}})


def _data(data: DataConfig, folder: Path) -> DataConfig:
    given = [data.path] if isinstance(data.path, str) else data.path or ()
    is_code = data.source == "python"
    paths = tuple(_function(path, folder) if is_code else _file(path, folder, "dataset") for path in given)
    path = paths if isinstance(data.path, tuple) else next(iter(paths), None)
    return data.model_copy(update={"path": path, "chat_template": _file(data.chat_template, folder)})


def _set(one: EvalSet, folder: Path) -> DataConfig:
    if one.reward is not None:
        reward = one.reward.model_copy(update={"type": _function(one.reward.type, folder)})
        one = one.model_copy(update={"reward": reward})
    if one.generate is not None and one.generate != ONE_TURN:
        one = one.model_copy(update={"generate": _function(one.generate, folder)})
    return _data(one, folder)


def _file(path: str | None, folder: Path, kind: hub.Kind | None = None) -> str | None:
    """The path as an absolute one. A hub's name becomes its place in the cache, and stays a name if it has none."""
    if path is None or path.startswith(PACKAGE_PREFIX):
        return path
    found = os.path.normpath(folder / Path(path).expanduser())
    if kind is None or hub.on_hub(path, kind) is None or os.path.exists(found):
        return found
    cached = hub.in_cache(path, kind)
    return str(cached) if cached else path


def _function(path: str | None, folder: Path) -> str | None:
    if path is None:
        return None
    module, function = split_function(path)
    return f"{_file(module, folder)}:{function}" if module.endswith(".py") else path
