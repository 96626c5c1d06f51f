"""What a process of a run logs: `logging.level` of the run file, in one format."""

from __future__ import annotations

import logging
from pathlib import Path

from core.config.sections.logging import LoggingConfig

FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"
TALKATIVE = ("httpx", "httpcore", "urllib3", "asyncio", "filelock")  # some log every request


def start_logging(config: LoggingConfig, path: Path | None = None, *, quiet: bool = False) -> None:
    """Log to the file `path`, or to stderr, from the run file's level on.

    Args:
        quiet: one of many processes that say the same: warnings only.
    """
    level = logging.WARNING if quiet else logging.getLevelNamesMapping()[config.level.upper()]
    logging.basicConfig(level=level, format=FORMAT, filename=path, force=True)
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
