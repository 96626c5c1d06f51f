"""All doors: where a user's own code may stand in for a built-in, and the built-ins' names.

To add a built-in: one file, and one entry here. What each door wants is in docs/doors.md.
"""

from __future__ import annotations

from core.plugins import Door

SCHEDULE = Door(
    key="placement.schedule",
    builtins={"in_turns": "core.loop.in_turns:run"},
    arguments=("parts",),
    options_key="placement.schedule_options",
    gives="bool: whether the run is complete",
)

DOORS: tuple[Door, ...] = (SCHEDULE,)
"""Every door whose key takes one name; checks and docs go through them."""
