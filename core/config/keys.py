"""The run file as a kind of file: its schema in words, and what messages call it."""

from __future__ import annotations

from common.schema_words import KeyPath, SchemaWords
from common.yaml_dialect import Typed
from common.yaml_document import FileKind
from core.config.other_names import EVAL_SETS, hint
from core.config.schema import RunConfig

RUN_KEYS = SchemaWords(RunConfig)


def _where_it_belongs(path: KeyPath) -> str | None:
    if path[:-1] == ("slurm",) and path[-1] in RUN_KEYS.keys_of(("slurm", "components", "0")):
        return f"set {path[-1]} on an entry of slurm.components"
    if len(path) == 5 and path[:2] == EVAL_SETS and path[3] == "reward" and path[4] in RUN_KEYS.keys_of(("reward",)):
        named = f"name the function as {'.'.join(path[:4])}.type"
        return named if path[4] == "path" else f"set reward.{path[4]}, which is the run's"
    return hint(path, own=RUN_KEYS.home_of(path[-1]) is not None)


RUN_FILE = FileKind(
    name="run file",
    content="a mapping of sections such as model, data, rollout",
    page="docs/run-file.md",
    reader=Typed,
    when_missing="give the path of a YAML file",
    where_it_belongs=_where_it_belongs,
)
