"""Bash as far as launch scripts use it, read and followed; no command of a script is ever run."""

from __future__ import annotations

from launchers.moving_in.shell.follow import Followed, follow
from launchers.moving_in.shell.gaps import Gap, Gaps
from launchers.moving_in.shell.parser import ScriptError
from launchers.moving_in.shell.state import Launch

__all__ = ["Followed", "Gap", "Gaps", "Launch", "ScriptError", "follow"]
