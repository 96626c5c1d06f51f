"""What nobody may unpickle."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any


class Hostile:
    """Unpickled, it leaves a folder."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.trace),)
