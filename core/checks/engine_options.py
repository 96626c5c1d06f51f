"""Options of SGLang that a run file sets: each is one of SGLang's own, of its kind, and none of those that we set."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from common.mistake import Mistake, show
from common.nearest import nearest
from core.config.schema import RunConfig
from core.sglang.engine_options import OWNED, QUANTISING, SET_BY_US, known_options

OURS = "an option that the run sets"
PLAIN: dict[str, tuple[str, tuple[type, ...]]] = {
    "switch": ("true or false", (bool,)),
    "on_off": ("true or false", (bool,)),
    "integer": ("a whole number", (int,)),
    "number": ("a number", (int, float)),
    "text": ("text", (str,)),
    "scalar": ("a number or text", (int, float, str)),
    "list": ("a list", (list,)),
    "json": ("a mapping or a list", (dict, list, str)),
}
"""What a value of each kind of option is, and how YAML gives it to us. null: as if the option were not there."""


def engine_options(config: RunConfig) -> Iterator[Mistake]:
    """Known to SGLang, plain values of the right kind, and free for a run file to set."""
    if not config.placement.engine_options:
        return
    source, known = known_options(config.placement.device)
    for name, value in config.placement.engine_options.items():
        key = f"placement.engine_options.{name}"
        if name in OWNED:
            yield Mistake(key, None, OURS, "an option that no other key sets", f"set {OWNED[name]}")
        elif name in SET_BY_US:
            wanted = f"an option that the run leaves free: this one bears on {SET_BY_US[name]}"
            yield Mistake(key, None, OURS, wanted, "remove it")
        elif name not in known:
            suggestion = nearest(name.replace("-", "_"), list(known))
            remedy = f"did you mean {suggestion}?" if suggestion else "correct the name, or remove it"
            yield Mistake(key, None, "an unknown option", f"an option of {source}, as its ServerArgs names it", remedy)
        elif name in QUANTISING and value and config.placement.trainers != "none":
            wanted = "weights as the trainer sends them: a sync does not fit those that an engine has quantised"
            room = "placement.engine_weights has syncs quantise, engine_tensor_parallel gives engines more room"
            remedy = f"remove it; {room}, and a model that has been exported may be quantised for serving"
            yield Mistake(key, None, show(value), wanted, remedy)
        elif not _fits(value, known[name].kind):
            yield Mistake(key, None, show(value), PLAIN[known[name].kind][0], "correct the value, or remove the option")
        elif strange := [word for word in _words(value) if known[name].choices and word not in known[name].choices]:
            suggestion = nearest(strange[0], list(known[name].choices))
            remedy = f"did you mean {suggestion}?" if suggestion else "use one of these, or remove the option"
            yield Mistake(key, None, strange[0], f"{', '.join(known[name].choices)} ({source})", remedy)


def _words(value: Any) -> list[str]:
    """What it puts on the command line."""
    return [] if value is None else [str(word) for word in (value if isinstance(value, list) else [value])]


def _fits(value: Any, kind: str) -> bool:
    kinds = PLAIN[kind][1]
    return value is None or (isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool)))
