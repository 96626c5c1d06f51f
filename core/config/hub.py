"""Names of models and data sets on a hub, in place of a path, and the folder in the hub's cache that they stand for.

`Qwen/Qwen2.5-0.5B-Instruct` is such a name where no folder of that path lies beside the run file; behind the name of a
data set may follow a folder or file of it: `openai/gsm8k/main`. huggingface_hub keeps the cache (HF_HOME). Nothing is
downloaded here: `ebbtide fetch` does.
"""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from common.mistake import Wrong

LIBRARY = "huggingface_hub"
Kind = Literal["model", "dataset"]

NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
INSIDE = re.compile(rf"({NAME.pattern})((?:/[\w.=-]+)*)")
# `data/rows.jsonl` is meant as a file, whether it is there or not
FILE_SUFFIXES = (".jsonl", ".ndjson", ".parquet", ".json", ".yaml", ".csv")
ALLOWED: dict[Kind, list[str]] = {
    "model": ["*.json", "*.txt", "*.jinja", "*.model", "model*.safetensors", "additional_chat_templates/*"],
    "dataset": ["*.parquet", "*.jsonl", "*.ndjson", "*.md"],
}
NOT_OF_A_MODEL = ["original/*", "onnx/*", "openvino/*", "runs/*", "checkpoint-*/*"]


def on_hub(path: str, kind: Kind) -> tuple[str, str] | None:
    """The name of a repository and what is meant inside it; None: the text is no such name.

    Whether there is a folder of that path instead, its caller knows.
    """
    if kind == "model":
        return (path, "") if NAME.fullmatch(path) else None
    found = INSIDE.fullmatch(path)
    if found is None or (not found[2] and path.endswith(FILE_SUFFIXES)):
        return None
    return found[1], found[2].strip("/")


def in_cache(path: str, kind: Kind) -> Path | None:
    """The place in the hub's cache that a name means; None: it is not there, or not all of it."""
    named = on_hub(path, kind)
    if named is None:
        return None
    name, inside = named
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError
    except ImportError:
        return None
    try:
        allowed, ignored = patterns(kind, inside)
        found = snapshot_download(
            name, repo_type=kind, local_files_only=True, allow_patterns=allowed, ignore_patterns=ignored
        )
    except LocalEntryNotFoundError:
        return None
    return Path(found) / inside


def patterns(kind: Kind, inside: str = "") -> tuple[list[str], list[str]]:
    """What is fetched of a repository, or of a folder or file in it, and what of that is not."""
    return [inside, f"{inside}/*"] if inside else ALLOWED[kind], NOT_OF_A_MODEL if kind == "model" else []


def last_name(path: str) -> str:
    """The name of a model's folder; of one in the hub's cache, whose folders are named by commits, the model's."""
    found = re.search(r"/models--[^/]+?--([^/]+)/snapshots/[^/]+$", path)
    return found[1] if found else Path(path).name


def fetch_command(path: str, kind: Kind) -> str:
    """What to type where there is internet."""
    return f"ebbtide fetch {path}" + (" --dataset" if kind == "dataset" else "")


def cache_folder() -> str:
    """The folder of the hub's cache, as its environment has it."""
    from huggingface_hub import constants

    return str(constants.HF_HUB_CACHE)


def not_in_cache(path: str, kind: Kind) -> Wrong:
    """What is wrong with a name that was not found."""
    what = "a model" if kind == "model" else "data"
    if find_spec(LIBRARY) is None:
        found = f"{path}, which is not beside the run file, and no package {LIBRARY}, which finds it as a hub's name"
        return Wrong(found, f"{what} that is here", f"correct the path, or: pip install {LIBRARY}")
    found = f"{path}, which is neither beside the run file nor, all of it, in the hub's cache {cache_folder()}"
    return Wrong(found, f"{what} that is here", f"fetch it, where there is internet: {fetch_command(path, kind)}")
