"""What became of a script, in a few lines."""

from __future__ import annotations

from collections.abc import Iterator

from core.config.keys import RUN_KEYS
from launchers.moving_in.draft import LOSSES, Draft
from launchers.moving_in.import_script import Imported

SAME = "slime's default, without"  # of a key that has the same default here


def summary(found: Imported, name: str) -> str:
    """How flags were translated, which defaults were written out, and what has no counterpart."""
    draft = found.draft
    from_flags = {setting.source for setting in draft.settings.values() if setting.source}
    lines = [
        f"{name}: {len(from_flags)} flags translated, {len(draft.nothing)} need nothing, "
        f"{len(draft.lost)} without a counterpart",
        f"  slime's defaults, written out: {', '.join(_defaults(draft, differ=True)) or 'none'}",
        f"  as here, though slime has another way: {', '.join(_defaults(draft, differ=False)) or 'none'}",
    ]
    if draft.losses("task"):
        lines.append("  THE RUN FILE IS NOT THE SCRIPT'S TRAINING: a part of that is not built (task, below)")
    lines += [f"  model: the sizes are those of {found.model}"] if found.model else []
    if found.unknown_family:
        lines.append(f"  model: {found.unknown_family}, which no family of `ebbtide models` has")
    lines += [f"  to be filled in: {line}" for line in draft.todo]
    for kind in LOSSES:
        lines += [f"  no counterpart ({kind}): {lost.flag}: {lost.why}; {lost.do}" for lost in draft.losses(kind)]
    lines += [f"  not valid yet: {mistake}" for mistake in found.mistakes]
    return "\n".join(lines)


def _defaults(draft: Draft, *, differ: bool) -> Iterator[str]:
    """Keys that no flag named: those that are not as a run file has them by default, or those that are."""
    for key, setting in draft.settings.items():
        schema = RUN_KEYS.schema_at(tuple(key.split("."))) or {}
        if setting.source or not setting.comment or key == "name" or "default" not in schema:
            continue
        if (setting.value != schema["default"]) is differ and not (not differ and SAME in setting.comment):
            yield key
